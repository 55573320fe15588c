// SPDX-License-Identifier: MPL-2.0

/// Version and flags of the box around the record in a file.
const FULL_BOX: [u8; 4] = [1, 0, 0, 0];

/// `VPCodecConfigurationRecord`, with or without the version and flags before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VpxConfig {
    pub profile: u8,
    pub bit_depth: u8,
    /// 0 and 1 are 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub chroma: u8,
}

impl VpxConfig {
    pub fn parse(record: &[u8]) -> Option<Self> {
        let record = match record.strip_prefix(&FULL_BOX) {
            Some(rest) if rest.len() >= 8 => rest,
            _ => record,
        };
        let &[profile, _level, depth, _, _, _, _, _, ..] = record else {
            return None;
        };
        let config = VpxConfig {
            profile,
            bit_depth: depth >> 4,
            chroma: depth >> 1 & 7,
        };
        (profile <= 3 && matches!(config.bit_depth, 8 | 10 | 12)).then_some(config)
    }
}

// SPDX-License-Identifier: MPL-2.0

//! Names of profiles and levels, as GStreamer's caps have them.

use super::{Av1Config, AvcConfig, HevcConfig};

impl AvcConfig {
    pub fn profile_name(&self) -> Option<&'static str> {
        let is_set = |bit: u8| self.constraints & (0x80 >> bit) != 0;
        Some(match self.profile {
            66 if is_set(1) => "constrained-baseline",
            66 => "baseline",
            77 => "main",
            88 => "extended",
            100 if is_set(4) && is_set(5) => "constrained-high",
            100 if is_set(4) => "progressive-high",
            100 => "high",
            110 if is_set(3) => "high-10-intra",
            110 if is_set(4) => "progressive-high-10",
            110 => "high-10",
            122 if is_set(3) => "high-4:2:2-intra",
            122 => "high-4:2:2",
            244 if is_set(3) => "high-4:4:4-intra",
            244 => "high-4:4:4",
            _ => return None,
        })
    }

    pub fn level_name(&self) -> Option<String> {
        // Level 1b is level 1.1 with a flag, or 9.
        let is_1b = self.level == 11 && self.constraints & 0x10 != 0 && self.profile < 100;
        if is_1b || self.level == 9 {
            return Some("1b".to_owned());
        }
        level(self.level, 10)
    }
}

impl HevcConfig {
    pub fn profile_name(&self) -> Option<&'static str> {
        match self.profile {
            1 => Some("main"),
            2 => Some("main-10"),
            3 => Some("main-still-picture"),
            _ => None,
        }
    }

    pub fn level_name(&self) -> Option<String> {
        level(self.level, 30)
    }
}

impl Av1Config {
    pub fn profile_name(&self) -> Option<&'static str> {
        match self.profile {
            0 => Some("main"),
            1 => Some("high"),
            2 => Some("professional"),
            _ => None,
        }
    }
}

/// Writes a level that is counted in `parts` of a whole level.
fn level(level: u8, parts: u8) -> Option<String> {
    let (level, parts) = (u32::from(level), u32::from(parts));
    let (whole, part) = (level / parts, level % parts * 10 / parts);
    match (whole, part) {
        (0, _) => None,
        (whole, 0) => Some(whole.to_string()),
        (whole, part) => Some(format!("{whole}.{part}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_a_name() {
        let names = [
            (0, None),
            (30, Some("1")),
            (93, Some("3.1")),
            (119, Some("3.9")),
        ];
        for (number, name) in names {
            assert_eq!(level(number, 30).as_deref(), name);
        }
        assert_eq!(level(u8::MAX, 30).as_deref(), Some("8.5"));
        assert_eq!(level(41, 10).as_deref(), Some("4.1"));
    }
}

// SPDX-License-Identifier: MPL-2.0

use gstrtmp2server::internal::rtmp::chunk::ChunkWriter;
use proptest::prelude::*;

use crate::encoder::{encode, lanes, picks, read};

proptest! {
    #![proptest_config(properties::cases(200))]

    /// Holds for any chunk types, any interleaving and any split.
    #[test]
    fn sent_messages_are_read(
        lanes in lanes(),
        picks in picks(),
        steps in prop::collection::vec(1..300_usize, 1..20),
    ) {
        let (bytes, sent) = encode(&lanes, &picks);
        prop_assert_eq!(&read(&bytes, &[usize::MAX]), &sent);
        prop_assert_eq!(&read(&bytes, &[1]), &sent);
        prop_assert_eq!(&read(&bytes, &steps), &sent);
    }

    #[test]
    fn written_messages_are_read(
        size in prop_oneof![1..200_u32, 1..=0xFF_FFFF_u32],
        csid in 2..65_600_u32,
        msid: u32,
        body in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let mut writer = ChunkWriter::default();
        let mut bytes = Vec::new();
        writer.write(&mut bytes, 2, 1, 0, &size.to_be_bytes());
        writer.set_chunk_size(size);
        writer.write(&mut bytes, csid, 9, msid, &body);
        let messages = read(&bytes, &[7]);
        prop_assert_eq!(messages.len(), 1);
        prop_assert_eq!((messages[0].csid, messages[0].msid), (csid, msid));
        prop_assert_eq!(&messages[0].body, &body);
    }
}

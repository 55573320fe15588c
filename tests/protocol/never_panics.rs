// SPDX-License-Identifier: MPL-2.0

use gstrtmp2server::internal::amf0::{self, Value};
use gstrtmp2server::internal::flv::{TagInfo, TagKind};
use gstrtmp2server::internal::rtmp::Headroom;
use gstrtmp2server::internal::rtmp::authentication::{
    ChallengeOutcome, Challenger, Credentials, Method,
};
use gstrtmp2server::internal::rtmp::chunk::{ChunkReader, ReaderLimits};
use gstrtmp2server::internal::rtmp::limits::MAX_BUFFERED;
use gstrtmp2server::internal::server::{RequestedPath, Route};
use proptest::prelude::*;

use crate::encoder::{encode, lanes, picks};

pub fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (-1e12..1e12).prop_map(Value::Number),
        any::<bool>().prop_map(Value::Boolean),
        ".{0,20}".prop_map(Value::String),
        Just(Value::Null),
        Just(Value::Undefined),
        any::<u16>().prop_map(Value::Reference),
        ".{0,20}".prop_map(Value::XmlDocument),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let properties = prop::collection::vec(("[a-z]{1,9}", inner.clone()), 0..5);
        prop_oneof![
            properties.clone().prop_map(Value::Object),
            properties.clone().prop_map(Value::EcmaArray),
            prop::collection::vec(inner, 0..5).prop_map(Value::StrictArray),
            ("[a-z]{1,9}", properties)
                .prop_map(|(class, properties)| Value::TypedObject { class, properties }),
        ]
    })
}

proptest! {
    #![proptest_config(properties::cases(300))]

    #[test]
    fn amf0_values_survive_a_round_trip(values in prop::collection::vec(value(), 0..6)) {
        let mut bytes = Vec::new();
        amf0::write_all(&mut bytes, &values);
        prop_assert_eq!(amf0::read_all(&bytes).map(|decoded| decoded.values), Ok(values));
    }

    #[test]
    fn parsers_survive_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = amf0::read_all(&bytes);
        let _ = amf0::read_all(&[&[0x11][..], &bytes].concat());
        for kind in [TagKind::Audio, TagKind::Video, TagKind::Script] {
            let _ = TagInfo::of(kind, &bytes);
        }
    }

    #[test]
    fn chunk_reader_survives_mutations_within_its_limit(
        lanes in lanes(),
        picks in picks(),
        mutations in prop::collection::vec((any::<usize>(), any::<u8>()), 0..20),
    ) {
        let (mut bytes, _) = encode(&lanes, &picks);
        let length = bytes.len();
        for (position, byte) in mutations {
            bytes[position % length] = byte;
        }
        let mut reader = ChunkReader::new(ReaderLimits::default(), Headroom::default());
        let mut input = &bytes[..];
        while let Ok(Some(_)) = reader.read(&mut input) {
            prop_assert!(reader.buffered() <= MAX_BUFFERED);
        }
    }

    /// No query is accepted, and every answer is short enough for ffmpeg.
    #[test]
    fn guesses_do_not_authenticate(
        adobe in any::<bool>(),
        user in "camera|.{0,100}",
        extra in "[a-z]{1,9}=[ -~]{0,30}",
        response in "[ -~]{0,40}",
    ) {
        let method = if adobe { Method::Adobe } else { Method::Llnw };
        let credentials = Credentials {
            method,
            username: "camera".into(),
            password: "secret".into(),
        };
        let name = method.name();
        let application = format!("live?authmod={name}&user={user}&{extra}&response={response}");
        let now = std::time::Duration::from_secs(1_000_000);
        match Challenger::new([3; 32]).evaluate(method, &[&credentials], &application, now) {
            ChallengeOutcome::Granted => prop_assert!(false, "{application}"),
            ChallengeOutcome::Challenged(text) | ChallengeOutcome::Failed(text) => prop_assert!(text.len() < 255),
        }
    }

    #[test]
    fn routes_take_any_request(
        template in "[a-z]{0,4}(\\{[a-z]{1,3}\\}[a-z_/]{0,4}){0,3}",
        application in ".{0,40}",
        key in ".{0,40}",
    ) {
        let Ok(route) = Route::new(Some("live"), Some(&template)) else {
            return Ok(());
        };
        route.may_match(&application);
        if let Some(matched) = route.matches(&RequestedPath::new(&application, &key)) {
            for (_, value) in matched.variables {
                prop_assert!(!value.is_empty() && !value.contains('/'));
            }
        }
    }
}

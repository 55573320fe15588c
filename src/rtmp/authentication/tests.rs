// SPDX-License-Identifier: MPL-2.0

use super::*;

const NOW: Duration = Duration::from_secs(1_000_000);

fn challenger() -> Challenger {
    Challenger::new([7; 32])
}

fn credentials(method: Method) -> Credentials {
    Credentials {
        method,
        username: "camera".into(),
        password: "p&ss=word".into(),
    }
}

fn judge(application: &str, method: Method, now: Duration) -> Outcome {
    let own = credentials(method);
    challenger().judge(method, &[&own], application, now)
}

#[track_caller]
fn asked(outcome: Outcome) -> String {
    match outcome {
        Outcome::Asked(description) => description,
        other => panic!("{other:?}"),
    }
}

/// What a client makes of a description that asks it for an answer.
fn answer(application: &str, method: Method, description: &str, password: &str) -> String {
    let (_, query) = description.split_once('?').unwrap();
    let value = |name: &str| {
        let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, v)| v.to_owned())
    };
    let own = Credentials {
        password: password.into(),
        ..credentials(method)
    };
    match method {
        Method::Adobe => {
            let challenge = Challenge {
                salt: value("salt").unwrap(),
                token: value("opaque").unwrap(),
            };
            let response = adobe::response(&own, &challenge, &Query("challenge=abc="));
            format!("{application}?authmod=adobe&user=camera&challenge=abc=&response={response}")
        }
        Method::Llnw => {
            let challenge = Challenge {
                salt: String::new(),
                token: value("nonce").unwrap(),
            };
            let own_query = "nc=00000001&cnonce=0a0b";
            let response = llnw::response(&own, &challenge, &Query(own_query), application);
            format!("{application}?authmod=llnw&user=camera&{own_query}&response={response}")
        }
    }
}

#[test]
fn a_client_is_led_through_all_steps() {
    for (method, first, second) in [
        (
            Method::Adobe,
            "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ",
            "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=camera&salt=",
        ),
        (
            Method::Llnw,
            "[ AccessManager.Reject ] : [ code=403 need auth; authmod=llnw ] : ",
            "[ AccessManager.Reject ] : [ authmod=llnw ] : ?reason=needauth&user=camera&nonce=",
        ),
    ] {
        assert_eq!(asked(judge("live", method, NOW)), first);
        let name = method.name();
        let application = format!("live?authmod={name}&user=camera");
        let description = asked(judge(&application, method, NOW));
        assert!(description.starts_with(second), "{description}");
        assert!(description.len() < 255 - MAX_USERNAME + "camera".len());

        let right = answer("live", method, &description, "p&ss=word");
        assert_eq!(judge(&right, method, NOW), Outcome::Granted, "{right}");
        let wrong = answer("live", method, &description, "password");
        let failed = format!("[ AccessManager.Reject ] : [ authmod={name} ] : ?reason=authfailed");
        assert_eq!(judge(&wrong, method, NOW), Outcome::Failed(failed));
    }
}

#[test]
fn an_answer_is_good_for_a_while() {
    let step = Duration::from_secs(1);
    for method in [Method::Adobe, Method::Llnw] {
        let application = format!("live/x?authmod={}&user=camera", method.name());
        let description = asked(judge(&application, method, NOW));
        let right = answer("live/x", method, &description, "p&ss=word");
        let granted = |age| judge(&right, method, NOW + age) == Outcome::Granted;
        assert!(granted(CHALLENGE_LIFETIME - step));
        assert!(!granted(2 * CHALLENGE_LIFETIME + step));
    }
}

#[test]
fn an_answer_to_somebody_elses_challenge_is_worth_nothing() {
    let own = credentials(Method::Adobe);
    let query = "live?authmod=adobe&user=camera";
    let description = asked(Challenger::new([8; 32]).judge(Method::Adobe, &[&own], query, NOW));
    let answered = answer("live", Method::Adobe, &description, "p&ss=word");
    assert!(matches!(
        judge(&answered, Method::Adobe, NOW),
        Outcome::Failed(_)
    ));
    assert!(!challenger().verify(&own, "live?authmod=adobe&user=camera&response=", NOW));
    assert!(!challenger().verify(&own, "live", NOW));
}

#[test]
fn an_unknown_user_is_treated_like_a_known_one() {
    let query = "live?authmod=adobe&user=nobody";
    let description = asked(judge(query, Method::Adobe, NOW));
    assert!(description.contains("reason=needauth&user=nobody&salt="));
    let answered = "live?authmod=adobe&user=nobody&challenge=a&response=b";
    let Outcome::Failed(description) = judge(answered, Method::Adobe, NOW) else {
        panic!();
    };
    assert!(description.ends_with("?reason=authfailed"));
}

/// Worked out by the description of the method, with a known challenge.
#[test]
fn known_answers() {
    let own = Credentials {
        method: Method::Adobe,
        username: "user".into(),
        password: "password".into(),
    };
    let challenge = Challenge {
        salt: "salt".into(),
        token: "opaque".into(),
    };
    let adobe = adobe::response(&own, &challenge, &Query("challenge=abcd"));
    assert_eq!(adobe, "NutmrY1MC3cGxT0l0lRq4A==");
    let query = Query("nc=00000001&cnonce=abcd");
    let llnw = llnw::response(&own, &challenge, &query, "live?x");
    assert_eq!(llnw, "74cce43f798882f14b8db6e29383c130");
}

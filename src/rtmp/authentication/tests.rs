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

fn evaluate(application: &str, method: Method, now: Duration) -> ChallengeOutcome {
    let own = credentials(method);
    challenger().evaluate(method, &[&own], application, now)
}

#[track_caller]
fn challenged(outcome: ChallengeOutcome) -> String {
    match outcome {
        ChallengeOutcome::Challenged(description) => description,
        other => panic!("{other:?}"),
    }
}

/// Returns a client's answer to the description of a challenge.
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
            let response = adobe::response(&own, &challenge, &ApplicationQuery("challenge=abc="));
            format!("{application}?authmod=adobe&user=camera&challenge=abc=&response={response}")
        }
        Method::Llnw => {
            let challenge = Challenge {
                salt: String::new(),
                token: value("nonce").unwrap(),
            };
            let own_query = "nc=00000001&cnonce=0a0b";
            let response =
                llnw::response(&own, &challenge, &ApplicationQuery(own_query), application);
            format!("{application}?authmod=llnw&user=camera&{own_query}&response={response}")
        }
    }
}

#[test]
fn client_authenticates_in_all_steps() {
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
        assert_eq!(challenged(evaluate("live", method, NOW)), first);
        let name = method.name();
        let application = format!("live?authmod={name}&user=camera");
        let description = challenged(evaluate(&application, method, NOW));
        assert!(description.starts_with(second), "{description}");
        assert!(description.len() < 255 - MAX_USERNAME + "camera".len());

        let right = answer("live", method, &description, "p&ss=word");
        assert_eq!(
            evaluate(&right, method, NOW),
            ChallengeOutcome::Granted,
            "{right}"
        );
        let wrong = answer("live", method, &description, "password");
        let failed = format!("[ AccessManager.Reject ] : [ authmod={name} ] : ?reason=authfailed");
        assert_eq!(
            evaluate(&wrong, method, NOW),
            ChallengeOutcome::Failed(failed)
        );
    }
}

#[test]
fn answer_expires_after_two_lifetimes() {
    let step = Duration::from_secs(1);
    for method in [Method::Adobe, Method::Llnw] {
        let application = format!("live/x?authmod={}&user=camera", method.name());
        let description = challenged(evaluate(&application, method, NOW));
        let right = answer("live/x", method, &description, "p&ss=word");
        let granted = |age| evaluate(&right, method, NOW + age) == ChallengeOutcome::Granted;
        assert!(granted(CHALLENGE_LIFETIME - step));
        assert!(!granted(2 * CHALLENGE_LIFETIME + step));
    }
}

#[test]
fn answer_to_another_servers_challenge_is_rejected() {
    let own = credentials(Method::Adobe);
    let query = "live?authmod=adobe&user=camera";
    let description =
        challenged(Challenger::new([8; 32]).evaluate(Method::Adobe, &[&own], query, NOW));
    let answered = answer("live", Method::Adobe, &description, "p&ss=word");
    assert!(matches!(
        evaluate(&answered, Method::Adobe, NOW),
        ChallengeOutcome::Failed(_)
    ));
    assert!(!challenger().verify(&own, "live?authmod=adobe&user=camera&response=", NOW));
    assert!(!challenger().verify(&own, "live", NOW));
}

#[test]
fn unknown_user_is_challenged_like_a_known_one() {
    let query = "live?authmod=adobe&user=nobody";
    let description = challenged(evaluate(query, Method::Adobe, NOW));
    assert!(description.contains("reason=needauth&user=nobody&salt="));
    let answered = "live?authmod=adobe&user=nobody&challenge=a&response=b";
    let ChallengeOutcome::Failed(description) = evaluate(answered, Method::Adobe, NOW) else {
        panic!();
    };
    assert!(description.ends_with("?reason=authfailed"));
}

/// Computed from the description of the method, with a known challenge.
#[test]
fn responses_match_known_answers() {
    let own = Credentials {
        method: Method::Adobe,
        username: "user".into(),
        password: "password".into(),
    };
    let challenge = Challenge {
        salt: "salt".into(),
        token: "opaque".into(),
    };
    let adobe = adobe::response(&own, &challenge, &ApplicationQuery("challenge=abcd"));
    assert_eq!(adobe, "NutmrY1MC3cGxT0l0lRq4A==");
    let query = ApplicationQuery("nc=00000001&cnonce=abcd");
    let llnw = llnw::response(&own, &challenge, &query, "live?x");
    assert_eq!(llnw, "74cce43f798882f14b8db6e29383c130");
}

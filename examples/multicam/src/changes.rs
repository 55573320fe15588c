// SPDX-License-Identifier: MPL-2.0

//! The difference between the present configuration and a new one.

use super::plan::{Name, Plan};

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub removed: Vec<Name>,
    pub changed: Vec<Plan>,
    pub added: Vec<Plan>,
}

impl Changes {
    pub fn between<'a>(present: impl Iterator<Item = &'a Plan>, wanted: &[Plan]) -> Self {
        let present: Vec<&Plan> = present.collect();
        let mut changes = Changes::default();
        for plan in &present {
            if !wanted.iter().any(|wanted| wanted.name == plan.name) {
                changes.removed.push(plan.name.clone());
            }
        }
        for plan in wanted {
            match present.iter().find(|present| present.name == plan.name) {
                Some(present) if *present == plan => {}
                Some(_) => changes.changed.push(plan.clone()),
                None => changes.added.push(plan.clone()),
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::config;
    use super::super::plan::plans;
    use super::*;

    fn planned(port: u16, cameras: &[(&str, &str)]) -> Vec<Plan> {
        let camera = |(id, name): &(&str, &str)| {
            format!(r#"{{"id": "{id}", "streams": [{{"name": "{name}"}}]}}"#)
        };
        let cameras: Vec<String> = cameras.iter().map(camera).collect();
        let text = format!(
            r#"{{"listen": {{"port": {port}}},
                 "source": {{"rtmp": {{"application": "a", "stream_key": "{{camera_id}}"}}}},
                 "url_template": "rtmp://host/live/{{camera_id}}",
                 "cameras": [{}]}}"#,
            cameras.join(", ")
        );
        let config = config::parse("cameras.json", &text).unwrap();
        plans(Path::new(""), &config).unwrap()
    }

    #[test]
    fn only_different_streams_are_changed() {
        let present = planned(1935, &[("1", "main"), ("2", "main"), ("3", "main")]);
        // The order has no meaning.
        let same = planned(1935, &[("3", "main"), ("1", "main"), ("2", "main")]);
        assert_eq!(Changes::between(present.iter(), &same), Changes::default());

        let mut wanted = planned(1935, &[("1", "main"), ("3", "sub"), ("4", "main")]);
        wanted[0].retry.timeout_ms += 1;
        let changes = Changes::between(present.iter(), &wanted);
        let names = |plans: &[Plan]| -> Vec<String> {
            plans.iter().map(|plan| plan.name.to_string()).collect()
        };
        let removed: Vec<String> = changes.removed.iter().map(Name::to_string).collect();
        assert_eq!(removed, ["2/main", "3/main"]);
        assert_eq!(names(&changes.changed), ["1/main"]);
        assert_eq!(names(&changes.added), ["3/sub", "4/main"]);
    }

    #[test]
    fn another_port_changes_all_streams_that_listen() {
        let present = planned(1935, &[("1", "main"), ("2", "main")]);
        let wanted = planned(1936, &[("1", "main"), ("2", "main")]);
        assert_eq!(Changes::between(present.iter(), &wanted).changed, wanted);
    }
}

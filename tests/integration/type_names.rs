// SPDX-License-Identifier: MPL-2.0

//! The plugin in a process that has another plugin's types.

use support::clients::Running;
use support::launch;

/// Registers types with the names of another RTMP plugin's, then creates and runs each element. Criticals
/// are fatal.
const SCRIPT: &str = r#"
import gi
gi.require_version("Gst", "1.0")
from gi.repository import GObject, Gst
Gst.init(None)
taken = ["Rtmp2ServerSrc", "Rtmp2MultiServerSrc", "Rtmp2ServerBin", "Rtmp2FallbackSink", "Rtmp2RecordSink",
         "EFlvDemux", "EFlvLiveDemux"]
kept = [type(name, (Gst.Element,), {"__gtype_name__": "Gst" + name}) for name in taken]
kept += [type(name, (GObject.GObject,), {"__gtype_name__": name})
         for name in ("GstRtmp2ServerSrcAuthMod", "GstRtmp2StreamStatus", "GstRtmp2ConnectionState")]
for name in taken:
    element = Gst.ElementFactory.make(name.lower(), None)
    assert element is not None, name
    assert element.__gtype__.name != "Gst" + name, element.__gtype__.name
pipeline = Gst.parse_launch("rtmp2serversrc name=source port=0 ! fakesink")
pipeline.set_state(Gst.State.PLAYING)
assert pipeline.get_by_name("source").get_property("current-port") > 0
pipeline.set_state(Gst.State.NULL)
print("all elements were created")
"#;

#[test]
fn elements_load_beside_types_of_the_same_purpose() {
    let (mut command, _registry) = launch::command("/usr/bin/python3");
    command.args(["-c", SCRIPT]);
    command.env("G_DEBUG", "fatal-criticals");
    let output = Running::spawn(&mut command).wait();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("all elements were created"), "{text}");
}

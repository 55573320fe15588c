// SPDX-License-Identifier: MPL-2.0

//! Effects of the commands, in any order (section 7.2).

use std::sync::Arc;

use super::request::name_of;
use super::stream_name::is_name_of;
use super::unsolicited::reconnect_command;
use super::{PendingRequest, PublishRequest, Session, SessionEvent, SessionPhase};
use crate::amf0::Value;
use crate::rtmp::Violation;
use crate::rtmp::command::Command;
use crate::rtmp::control::{Control, PEER_BANDWIDTH_DYNAMIC};
use crate::rtmp::session::{ConnectRequest, SupportedCodecs};
use crate::rtmp::status::{Status, code};

impl Session {
    pub(super) fn command(
        &mut self,
        command: Command,
        msid: u32,
    ) -> Result<Option<SessionEvent>, Violation> {
        match command.name.as_str() {
            "connect" => return self.connect(&command).map(Some),
            "createStream" => self.create_stream(&command),
            "FCPublish" => return self.announce(&command),
            "publish" => return self.publish(&command, msid),
            "FCUnpublish" => {
                self.acknowledge_command(&command);
                return Ok(self.unpublish_name(&command.stream_name()));
            }
            "closeStream" => return Ok(self.close_stream(msid)),
            "deleteStream" => return Ok(self.delete_stream(&command)),
            "play" | "play2" => return Ok(Some(self.refuse_play(msid))),
            "getStreamLength" | "getMovLen" => {
                self.fail_command(&command, "This server only accepts publishers.");
            }
            // The specification has no reply for these.
            "pause" | "seek" | "receiveAudio" | "receiveVideo" => {}
            "_result" | "_error" | "onStatus" => {}
            // releaseStream, _checkbw, FCSubscribe, and unknown commands.
            _ => self.acknowledge_command(&command),
        }
        Ok(None)
    }

    fn connect(&mut self, command: &Command) -> Result<SessionEvent, Violation> {
        let request = Arc::new(ConnectRequest::read(command.arguments.first())?);
        self.acknowledgement
            .set_flash_encoder(request.is_flash_encoder);
        self.pending = Some(PendingRequest::Connect {
            transaction_id: command.transaction_id,
            request: request.clone(),
        });
        Ok(SessionEvent::Connect(request))
    }

    /// Accepts `connect`. A client that announces Enhanced RTMP capabilities gets those of the
    /// server. The specification does not say which of the two objects holds them, and clients look
    /// into either one.
    pub fn accept_connect(&mut self, codecs: &SupportedCodecs) {
        let Some(PendingRequest::Connect {
            transaction_id,
            request,
        }) = self.pending.take()
        else {
            return;
        };
        let encoding = request.object_encoding;
        let capabilities = request.offer.answer(codecs);
        self.connect = Some(request);
        let window = self.config.window_ack_size;
        self.output.control(Control::WindowAckSize(window));
        self.output.control(Control::SetPeerBandwidth {
            window,
            limit_type: PEER_BANDWIDTH_DYNAMIC,
        });
        self.output.set_chunk_size(self.config.chunk_size);
        let mut properties = vec![
            ("fmsVer".into(), "FMS/3,0,1,123".into()),
            ("capabilities".into(), 31.0.into()),
            ("mode".into(), 1.0.into()),
        ];
        properties.extend(capabilities.iter().cloned());
        let status = Status::success(code::CONNECT_SUCCESS, "Connection succeeded.");
        let mut information = status.properties();
        information.push(("objectEncoding".into(), encoding.into()));
        information.extend(capabilities);
        let arguments = vec![Value::Object(properties), Value::Object(information)];
        let result = Command::new("_result", transaction_id, arguments);
        self.output.connection_command(&result);
        if matches!(self.phase, SessionPhase::Connecting) {
            self.phase = SessionPhase::Connected;
        }
        self.held.open();
    }

    /// Rejects `connect`. The caller closes the connection after it has written the output.
    pub fn reject_connect(&mut self, status: &Status) {
        if let Some(PendingRequest::Connect { transaction_id, .. }) = self.pending.take() {
            let arguments = vec![Value::Null, Value::Object(status.properties())];
            let error = Command::new("_error", transaction_id, arguments);
            self.output.connection_command(&error);
        }
    }

    fn create_stream(&mut self, command: &Command) {
        // Ids start at 1: rtmp2sink treats 0 as a failure.
        self.created_streams = self.created_streams.saturating_add(1);
        let id = Value::Number(f64::from(self.created_streams));
        self.result(command, vec![Value::Null, id]);
        if !self.is_publishing() {
            self.held.open();
        }
    }

    fn announce(&mut self, command: &Command) -> Result<Option<SessionEvent>, Violation> {
        self.acknowledge_command(command);
        let Some(connect) = self.connect.clone() else {
            return Ok(None);
        };
        Ok(Some(SessionEvent::Announce(PublishRequest {
            connect,
            stream_key: name_of(&command.stream_name())?,
        })))
    }

    /// Confirms `FCPublish`. Some encoders continue only after this. It always has a transaction
    /// id: other encoders reject it without one.
    pub fn confirm_announcement(&mut self) {
        self.answer_announcement(&Status::success(code::PUBLISH_START, "FCPublish accepted."));
    }

    /// Rejects `FCPublish`. Encoders that wait for its answer end here with an error instead of a
    /// timeout. The connection stays open: only `publish` ends it.
    pub fn reject_announcement(&mut self, status: &Status) {
        self.answer_announcement(status);
    }

    fn answer_announcement(&mut self, status: &Status) {
        let arguments = vec![Value::Null, Value::Object(status.properties())];
        let answer = Command::new("onFCPublish", 0.0, arguments);
        self.output.connection_command(&answer);
    }

    fn publish(&mut self, command: &Command, msid: u32) -> Result<Option<SessionEvent>, Violation> {
        let connect = self.connect.clone();
        let connect = connect.ok_or(Violation::PublishBeforeConnect)?;
        let stream_key = name_of(&command.stream_name())?;
        if let SessionPhase::Publishing {
            stream_key: current,
            msid: published,
        } = &mut self.phase
        {
            if *current == stream_key {
                // Wirecast publishes again before it unpublishes. The stream continues.
                *published = msid;
                self.start_publishing(msid, &stream_key);
            } else {
                let description = "This connection publishes another stream already.";
                let status = Status::error(code::PUBLISH_BAD_NAME, description);
                self.on_status(msid, &status);
            }
            return Ok(None);
        }
        self.pending = Some(PendingRequest::Publish {
            msid,
            stream_key: stream_key.clone(),
        });
        Ok(Some(SessionEvent::Publish(PublishRequest {
            connect,
            stream_key,
        })))
    }

    /// Accepts `publish`. Media that arrived early follows as events.
    pub fn accept_publish(&mut self) {
        let Some(PendingRequest::Publish { msid, stream_key }) = self.pending.take() else {
            return;
        };
        self.start_publishing(msid, &stream_key);
        self.phase = SessionPhase::Publishing { msid, stream_key };
        self.replay = self.held.close().into();
    }

    /// Rejects `publish`. The caller closes the connection after it has written the output: some
    /// clients go on as if nothing had happened.
    pub fn reject_publish(&mut self, status: &Status) {
        if let Some(PendingRequest::Publish { msid, .. }) = self.pending.take() {
            self.on_status(msid, status);
            self.held.close();
        }
    }

    /// Asks the client to connect to another server, instead of an answer to `publish`. Only for
    /// clients that [can](ConnectRequest::can_reconnect). The caller closes the connection after it
    /// has written the output.
    pub fn redirect_publish(&mut self, tc_url: &str, description: &str) {
        self.pending = None;
        self.held.close();
        let command = reconnect_command(Some(tc_url), description);
        self.output.connection_command(&command);
    }

    fn start_publishing(&mut self, msid: u32, stream_key: &str) {
        self.output.control(Control::StreamBegin { msid });
        let description = format!("{stream_key} is now published.");
        let status = Status::success(code::PUBLISH_START, description);
        self.on_status(msid, &status);
    }

    /// Handles `closeStream`, which names its message stream. A message stream that the client has
    /// not created, like that of the connection, stands for the published one: Moblin uses 0.
    fn close_stream(&mut self, msid: u32) -> Option<SessionEvent> {
        let event = if self.is_other_stream(msid) {
            None
        } else {
            self.unpublish()
        };
        if event.is_none() {
            // HaishinKit waits for this status, also after FCUnpublish.
            self.on_status(msid, &unpublished());
        }
        event
    }

    /// Handles `deleteStream`. Its argument is a message stream id; rtmp2sink sends the stream key
    /// instead, and others send none.
    fn delete_stream(&mut self, command: &Command) -> Option<SessionEvent> {
        match command.argument(0) {
            Some(Value::Number(id)) if self.is_other_stream(*id as u32) => None,
            Some(Value::String(name)) => self.unpublish_name(name),
            _ => self.unpublish(),
        }
    }

    /// Returns true if this is a message stream of the client without a publish.
    fn is_other_stream(&self, msid: u32) -> bool {
        self.is_created(msid) && self.published_msid() != Some(msid)
    }

    /// Ends the stream if this is its name. No name stands for any stream.
    fn unpublish_name(&mut self, name: &str) -> Option<SessionEvent> {
        let SessionPhase::Publishing { stream_key, .. } = &self.phase else {
            return None;
        };
        let application = self.connect.as_ref().map(|c| c.application.as_str());
        if !name.is_empty() && !is_name_of(name, application.unwrap_or_default(), stream_key) {
            return None;
        }
        self.unpublish()
    }

    fn unpublish(&mut self) -> Option<SessionEvent> {
        let SessionPhase::Publishing { msid, .. } = self.phase else {
            return None;
        };
        self.on_status(msid, &unpublished());
        self.phase = SessionPhase::Connected;
        Some(SessionEvent::Unpublish)
    }

    fn refuse_play(&mut self, msid: u32) -> SessionEvent {
        let description = "Nothing can be played here: this server only accepts publishers.";
        let status = Status::error(code::PLAY_STREAM_NOT_FOUND, description);
        self.on_status(msid, &status);
        SessionEvent::Refused("it wants to play, and this server only accepts publishers")
    }

    fn on_status(&mut self, msid: u32, status: &Status) {
        let command = Command::on_status(status.properties());
        self.output.stream_command(msid, &command);
    }

    /// Answers a command that has no other effect. Transaction id 0 wants no answer (section
    /// 7.1.1).
    fn acknowledge_command(&mut self, command: &Command) {
        if command.transaction_id != 0.0 {
            self.result(command, vec![Value::Null, Value::Undefined]);
        }
    }

    fn fail_command(&mut self, command: &Command, reason: &str) {
        let status = Status::error(code::CALL_FAILED, reason);
        let arguments = vec![Value::Null, Value::Object(status.properties())];
        let error = Command::new("_error", command.transaction_id, arguments);
        self.output.connection_command(&error);
    }

    fn result(&mut self, command: &Command, arguments: Vec<Value>) {
        let result = Command::new("_result", command.transaction_id, arguments);
        self.output.connection_command(&result);
    }
}

fn unpublished() -> Status {
    Status::success(code::UNPUBLISH_SUCCESS, "The stream has ended.")
}

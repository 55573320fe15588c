// SPDX-License-Identifier: MPL-2.0
pub mod amf0;
pub mod feed;
pub mod flv;
pub mod rtmp;
pub mod server;

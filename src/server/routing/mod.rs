// SPDX-License-Identifier: MPL-2.0

//! Publish points: the route, the access rules and the streams of an element.

pub(crate) mod access;
pub(crate) mod application_index;
pub(crate) mod authorizer;
pub(crate) mod compatible;
pub(crate) mod counted;
pub(crate) mod pattern;
pub(crate) mod publish_point;
pub(crate) mod route;
pub(crate) mod route_index;
pub(crate) mod route_table;
pub(crate) mod signing;

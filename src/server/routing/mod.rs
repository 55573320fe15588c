// SPDX-License-Identifier: MPL-2.0

pub(crate) mod access;
pub(crate) mod pattern;
pub(crate) mod publish_point;
pub(crate) mod route;
pub(crate) mod rules;

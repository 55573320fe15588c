// SPDX-License-Identifier: MPL-2.0

//! Video metadata packets (Enhanced RTMP v2, "Metadata Frame").

use bytes::BufMut;

use super::BodyError;
use crate::amf0::{self, MAX_PROPERTIES, Value};

const COLOR_INFO: &str = "colorInfo";

/// `colorInfo`. An empty one revokes the one before.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ColorInfo {
    pub config: Option<ColorConfig>,
    pub light: Option<ContentLight>,
    pub mastering: Option<MasteringDisplay>,
}

/// Indexes into the tables of ITU-T H.273.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ColorConfig {
    pub bit_depth: Option<f64>,
    pub primaries: Option<f64>,
    pub transfer: Option<f64>,
    pub matrix: Option<f64>,
}

/// In cd/m².
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ContentLight {
    pub max_average: Option<f64>,
    pub max: Option<f64>,
}

/// The display that the picture was made on. Encoders may know a part of it only.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MasteringDisplay {
    pub primaries: Option<DisplayPrimaries>,
    /// In cd/m².
    pub max_luminance: Option<f64>,
    pub min_luminance: Option<f64>,
}

/// CIE 1931 coordinates as x and y.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DisplayPrimaries {
    pub red: (f64, f64),
    pub green: (f64, f64),
    pub blue: (f64, f64),
    pub white: (f64, f64),
}

impl ColorInfo {
    /// Returns `None` for metadata of another kind, and for a value of a wrong type.
    pub fn parse(body: &[u8]) -> Result<Option<Self>, BodyError> {
        let leading = amf0::read_leading(body, MAX_PROPERTIES);
        let mut values = leading.decoded.values.iter();
        // Bytes after the values mean nothing.
        if let (Some(error), 0 | 1) = (leading.error, values.len()) {
            return Err(error.into());
        }
        if values.next().and_then(Value::as_str) != Some(COLOR_INFO) {
            return Ok(None);
        }
        let info = match values.next() {
            Some(Value::Undefined | Value::Null) | None => return Ok(Some(ColorInfo::default())),
            Some(info) if info.properties().is_some() => info,
            Some(_) => return Ok(None),
        };
        let config = info.get("colorConfig").map(|config| ColorConfig {
            bit_depth: number(config, "bitDepth"),
            primaries: number(config, "colorPrimaries"),
            transfer: number(config, "transferCharacteristics"),
            matrix: number(config, "matrixCoefficients"),
        });
        let light = info.get("hdrCll").map(|light| ContentLight {
            max_average: number(light, "maxFall"),
            max: number(light, "maxCLL"),
        });
        Ok(Some(ColorInfo {
            config,
            light,
            mastering: info.get("hdrMdcv").map(mastering),
        }))
    }

    pub fn write(&self, out: &mut impl BufMut) {
        let mut info = Vec::new();
        if let Some(config) = &self.config {
            let properties = numbers(&[
                ("bitDepth", config.bit_depth),
                ("colorPrimaries", config.primaries),
                ("transferCharacteristics", config.transfer),
                ("matrixCoefficients", config.matrix),
            ]);
            info.push(("colorConfig".to_owned(), properties));
        }
        if let Some(light) = &self.light {
            let properties = numbers(&[("maxFall", light.max_average), ("maxCLL", light.max)]);
            info.push(("hdrCll".to_owned(), properties));
        }
        if let Some(display) = &self.mastering {
            let point = |point: fn(&DisplayPrimaries) -> (f64, f64)| {
                let point = display.primaries.as_ref().map(point);
                (point.map(|(x, _)| x), point.map(|(_, y)| y))
            };
            let (red, green) = (point(|p| p.red), point(|p| p.green));
            let (blue, white) = (point(|p| p.blue), point(|p| p.white));
            let properties = numbers(&[
                ("redX", red.0),
                ("redY", red.1),
                ("greenX", green.0),
                ("greenY", green.1),
                ("blueX", blue.0),
                ("blueY", blue.1),
                ("whitePointX", white.0),
                ("whitePointY", white.1),
                ("maxLuminance", display.max_luminance),
                ("minLuminance", display.min_luminance),
            ]);
            info.push(("hdrMdcv".to_owned(), properties));
        }
        amf0::write_all(out, &[COLOR_INFO.into(), Value::Object(info)]);
    }
}

fn mastering(value: &Value) -> MasteringDisplay {
    let point = |x, y| Some((number(value, x)?, number(value, y)?));
    let primaries = || {
        Some(DisplayPrimaries {
            red: point("redX", "redY")?,
            green: point("greenX", "greenY")?,
            blue: point("blueX", "blueY")?,
            white: point("whitePointX", "whitePointY")?,
        })
    };
    MasteringDisplay {
        primaries: primaries(),
        max_luminance: number(value, "maxLuminance"),
        min_luminance: number(value, "minLuminance"),
    }
}

fn number(of: &Value, name: &str) -> Option<f64> {
    of.get(name)?
        .as_number()
        .filter(|number| number.is_finite())
}

fn numbers(properties: &[(&str, Option<f64>)]) -> Value {
    let present = properties.iter().filter_map(|(name, number)| {
        let number = (*number)?;
        Some(((*name).to_owned(), Value::Number(number)))
    });
    Value::Object(present.collect())
}

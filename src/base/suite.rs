//! The cipher suites, one of which a network agrees on.

use std::fmt;
use std::str::FromStr;

use snow::params::{
    BaseChoice, CipherChoice, DHChoice, HandshakeChoice, HandshakeModifierList, HandshakePattern,
    HashChoice, NoiseParams,
};

/// The cipher suite of a network. It is part of the prologue: peers of another suite cannot connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Suite {
    /// `Noise_XK_25519_ChaChaPoly_BLAKE2s`: fast on every processor.
    #[default]
    #[cfg_attr(feature = "serde", serde(rename = "chachapoly-blake2s"))]
    ChaChaPolyBlake2s,
    /// `Noise_XK_25519_AESGCM_SHA256`: about three times faster where the processor has AES.
    #[cfg_attr(feature = "serde", serde(rename = "aesgcm-sha256"))]
    AesGcmSha256,
}

impl Suite {
    /// The protocol's full name in the Noise specification, section 8.
    pub const fn noise_name(self) -> &'static str {
        match self {
            Self::ChaChaPolyBlake2s => "Noise_XK_25519_ChaChaPoly_BLAKE2s",
            Self::AesGcmSha256 => "Noise_XK_25519_AESGCM_SHA256",
        }
    }

    /// snow's description, built without parsing so that it cannot fail.
    pub(crate) fn params(self) -> NoiseParams {
        let (cipher, hash) = match self {
            Self::ChaChaPolyBlake2s => (CipherChoice::ChaChaPoly, HashChoice::Blake2s),
            Self::AesGcmSha256 => (CipherChoice::AESGCM, HashChoice::SHA256),
        };
        NoiseParams::new(
            self.noise_name().to_owned(),
            BaseChoice::Noise,
            HandshakeChoice {
                pattern: HandshakePattern::XK,
                modifiers: HandshakeModifierList { list: Vec::new() },
            },
            DHChoice::Curve25519,
            cipher,
            hash,
        )
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.noise_name())
    }
}

/// A name that is no suite of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown suite, expected chachapoly-blake2s or aesgcm-sha256")]
pub struct UnknownSuite;

impl FromStr for Suite {
    type Err = UnknownSuite;

    /// Takes the short name, as in a configuration file, or the full Noise name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "chachapoly-blake2s" => Ok(Self::ChaChaPolyBlake2s),
            "aesgcm-sha256" => Ok(Self::AesGcmSha256),
            full => [Self::ChaChaPolyBlake2s, Self::AesGcmSha256]
                .into_iter()
                .find(|suite| suite.noise_name() == full)
                .ok_or(UnknownSuite),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_those_that_the_name_says() {
        for suite in [Suite::ChaChaPolyBlake2s, Suite::AesGcmSha256] {
            let parsed: NoiseParams = suite.noise_name().parse().unwrap();
            assert_eq!(parsed, suite.params());
            assert_eq!(suite.to_string().parse(), Ok(suite));
        }
    }

    #[test]
    fn short_names_parse_and_others_do_not() {
        assert_eq!("chachapoly-blake2s".parse(), Ok(Suite::ChaChaPolyBlake2s));
        assert_eq!("aesgcm-sha256".parse(), Ok(Suite::AesGcmSha256));
        assert_eq!("aesgcm".parse::<Suite>(), Err(UnknownSuite));
        assert_eq!("".parse::<Suite>(), Err(UnknownSuite));
    }
}

//! Tables of numbers: each makes a public struct and the live counters that it is sampled from.
//!
//! Owns the macros `stats!` and `kinds!`, so that a number, a kind of failure and its counter stand in
//! one line each. They must make plain data only.

/// A public struct of numbers and its live counters. A field is a `u64` counter if nothing else is
/// said; with `counts`, each field counts one pattern of an enum, besides those set `apart`.
macro_rules! stats {
    (
        $(#[$meta:meta])*
        $Stats:ident, live as $Counters:ident {
            $( $(#[$field_meta:meta])* $field:ident: $ty:ty $(, live as $Live:ty)?; )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub struct $Stats {
            $( $(#[$field_meta])* pub $field: $ty, )+
        }

        #[doc = concat!("Live counters of [`", stringify!($Stats), "`].")]
        #[derive(Default)]
        pub(crate) struct $Counters {
            $( pub(crate) $field: stats!(@live $ty $(, $Live)?), )+
        }

        impl $crate::base::metrics::counter::Sampled for $Stats {
            type Live = $Counters;

            fn sample(live: &$Counters) -> Self {
                Self {
                    $( $field: stats!(@sample $ty, live.$field $(, $Live)?), )+
                }
            }
        }
    };
    (
        $(#[$meta:meta])*
        $Stats:ident, live as $Counters:ident, counts $Kind:ident {
            $( $(#[$field_meta:meta])* $kind:pat => $field:ident; )+
        } $(apart {
            $( $(#[$other_meta:meta])* $other:ident; )+
        })?
    ) => {
        stats! {
            $(#[$meta])*
            $Stats, live as $Counters {
                $( $(#[$field_meta])* $field: u64; )+
                $($( $(#[$other_meta])* $other: u64; )+)?
            }
        }

        impl $Counters {
            #[doc = concat!("Counts one [`", stringify!($Kind), "`].")]
            pub(crate) fn count(&self, kind: $Kind) {
                let counter = match kind {
                    $( $kind => &self.$field, )+
                };
                counter.one();
            }
        }
    };
    (@live $ty:ty) => { <$ty as $crate::base::metrics::counter::Sampled>::Live };
    (@live $ty:ty, $Live:ty) => { $Live };
    (@sample $ty:ty, $live:expr) => {
        <$ty as $crate::base::metrics::counter::Sampled>::sample(&$live)
    };
    (@sample $ty:ty, $live:expr, $Live:ty) => { $live.get() };
}

/// An enum of kinds, and the numbers and counters of how often each was met.
macro_rules! kinds {
    (
        $(#[$kind_meta:meta])*
        $Kind:ident,
        $(#[$meta:meta])*
        $Stats:ident, live as $Counters:ident {
            $( $(#[$field_meta:meta])* $variant:ident => $field:ident; )+
        } $(apart { $($apart:tt)+ })?
    ) => {
        $(#[$kind_meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
        #[non_exhaustive]
        pub enum $Kind {
            $( $(#[$field_meta])* $variant, )+
        }

        stats! {
            $(#[$meta])*
            $Stats, live as $Counters, counts $Kind {
                $( $(#[$field_meta])* $Kind::$variant => $field; )+
            } $(apart { $($apart)+ })?
        }
    };
}

pub(super) use {kinds, stats};

//! Macros that declare the types of a job file: `record!` a mapping, `words!` a closed list.
//!
//! What a field is called, what it holds and what it is by default stands in one line; reading,
//! writing, unknown keys and the printed whole follow from it.

/// Declares a mapping of a job file: its fields with name, type and default, in the order in
/// which they are written. A field without a default is required. `short "x"`: a single value is
/// read as the field `x`. `check f`: `f(&value, &map, walk)` reports what is wrong between the
/// fields. `manual`: the type implements `Part` itself, with `read_record` and `write_record`.
macro_rules! record {
    ($(#[$doc:meta])* pub struct $name:ident manual $($rest:tt)*) => {
        record! { @items $(#[$doc])* pub struct $name $($rest)* }
    };
    ($(#[$doc:meta])* pub struct $name:ident short $short:literal $($rest:tt)*) => {
        record! { @items $(#[$doc])* pub struct $name $($rest)* }
        impl Part for $name {
            fn read(node: &Node, walk: &mut Walk<'_>) -> Option<$name> {
                match &node.value {
                    Value::Scalar(..) if !node.is_null() => {
                        $name::read_record(&long_form(node, $short), walk)
                    }
                    _ => $name::read_record(node, walk),
                }
            }

            fn write(&self, detail: Detail) -> Json {
                match self.write_record(detail) {
                    Json::Map(mut fields) if fields.len() == 1 && fields[0].0 == $short => {
                        fields.remove(0).1
                    }
                    whole => whole,
                }
            }
        }
    };
    (
        @items $(#[$doc:meta])*
        pub struct $name:ident $(check $check:path)? {
            $(
                $(#[$field_doc:meta])*
                $field:ident $(as $key:literal)? : $type:ty $(= $default:expr)?,
            )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            pub(crate) fn read_record(node: &Node, walk: &mut Walk<'_>) -> Option<$name> {
                let mut map = walk.map(node)?;
                $(
                    let $field: Option<$type> =
                        record!(@read map walk [$field $($key)?] $($default)?);
                )*
                map.finish(walk);
                let value = $name { $($field: $field?,)* };
                $($check(&value, &map, walk);)?
                Some(value)
            }

            pub(crate) fn write_record(&self, detail: Detail) -> Json {
                let fields: [Option<(String, Json)>; _] =
                    [$(record!(@write self detail [$field $($key)?] $type $(, $default)?)),*];
                Json::Map(fields.into_iter().flatten().collect())
            }
        }
    };
    (@read $map:ident $walk:ident $key:tt) => {
        $map.required($walk, record!(@key $key))
    };
    (@read $map:ident $walk:ident $key:tt $default:expr) => {
        Some($map.field($walk, record!(@key $key), $default))
    };
    (@write $self:ident $detail:ident [$field:ident $($key:literal)?] $type:ty) => {
        Some((record!(@key [$field $($key)?]).into(), $self.$field.write($detail)))
    };
    (
        @write $self:ident $detail:ident [$field:ident $($key:literal)?] $type:ty, $default:expr
    ) => {{
        let default: $type = $default;
        ($detail == Detail::Whole || $self.$field != default)
            .then(|| (record!(@key [$field $($key)?]).into(), $self.$field.write($detail)))
    }};
    (@key [$field:ident $key:literal]) => { $key };
    (@key [$field:ident]) => { stringify!($field) };
    ($(#[$doc:meta])* pub struct $name:ident $($rest:tt)*) => {
        record! { @items $(#[$doc])* pub struct $name $($rest)* }
        impl Part for $name {
            fn read(node: &Node, walk: &mut Walk<'_>) -> Option<$name> {
                $name::read_record(node, walk)
            }

            fn write(&self, detail: Detail) -> Json {
                self.write_record(detail)
            }
        }
    };
}

/// Declares a closed list of words.
macro_rules! words {
    (
        $(#[$doc:meta])*
        pub enum $name:ident ($what:literal) {
            $($(#[$word_doc:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $variant,)*
        }

        impl $name {
            /// Every word, in order.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The word as it stands in a job file.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::spec::walk::Scalar for $name {
            const WHAT: &'static str = $what;

            fn parse(text: &str) -> Result<$name, $crate::spec::problem::Issue> {
                $crate::spec::scalar::parse_word(text, $name::ALL, |word| word.as_str())
            }

            fn print(&self) -> $crate::spec::json::Json {
                $crate::spec::json::Json::Text(self.as_str().to_string())
            }
        }
    };
}

pub(crate) use {record, words};

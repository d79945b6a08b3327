//! Tokens: how a machine or a person gets its first certificate.
//!
//! `yard-join-<id>.<secret>.<fingerprint>`: the id is public, the secret is stored by the
//! cluster as its SHA-256 only, and the fingerprint is that of the cluster's CAs. Who holds a
//! token checks the server against the fingerprint before the secret leaves the machine, so
//! somebody in between learns nothing.

use super::trust::{Fingerprint, sha256};
use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use std::fmt;
use std::str::FromStr;
use yard_common::id::TokenId;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a secret: nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;
/// Length of a secret or fingerprint as text.
const HEX_CHARS: usize = 2 * SECRET_BYTES;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A machine joins a pool.
    Join,
    /// A user logs in.
    Login,
    /// A machine joins as a member of the coordinator.
    Member,
    /// A node whose certificate ran out gets a new one.
    Renew,
}

impl TokenKind {
    const ALL: [TokenKind; 4] =
        [TokenKind::Join, TokenKind::Login, TokenKind::Member, TokenKind::Renew];

    fn word(self) -> &'static str {
        match self {
            TokenKind::Join => "join",
            TokenKind::Login => "login",
            TokenKind::Member => "member",
            TokenKind::Renew => "renew",
        }
    }
}

/// A secret of a token. Wiped when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// Reads the text of a secret, as it came over a verified connection.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Secret> {
        unhex(text).map(Secret)
    }

    /// The text of the secret, to be sent over a verified connection.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(&self.0))
    }

    /// What the cluster stores of it.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.0)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// A token, as it is handed to a person or a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is for.
    pub kind: TokenKind,
    /// Its public part.
    pub id: TokenId,
    /// Its secret part.
    pub secret: Secret,
    /// The CAs that the server must show.
    pub fingerprint: Fingerprint,
}

impl Token {
    /// Mints a token.
    ///
    /// # Panics
    /// If the machine has no randomness: nothing that depends on secrets can go on then.
    #[must_use]
    pub fn mint(kind: TokenKind, fingerprint: Fingerprint) -> Token {
        let (mut id, mut secret) = ([0; 16], [0; SECRET_BYTES]);
        let filled = aws_lc_rs::rand::fill(&mut id).and(aws_lc_rs::rand::fill(&mut secret));
        filled.expect("the kernel gives random bytes");
        let token = Token {
            kind,
            id: TokenId::from_u128(u128::from_be_bytes(id)),
            secret: Secret(secret),
            fingerprint,
        };
        secret.zeroize();
        token
    }

    /// The token of a request: the same for the same request and the same key, and as good as a
    /// random one to whoever has not got the key. A request that is asked again gets the token
    /// that it was given before, though the cluster keeps no secret.
    #[must_use]
    pub(super) fn derive(
        kind: TokenKind,
        fingerprint: Fingerprint,
        key: &hmac::Key,
        request: &[u8],
    ) -> Token {
        let part = |name: &[u8]| {
            let mut context = hmac::Context::with_key(key);
            // Each part ends before the next one begins, or has a length of its own.
            for part in [name, b".", kind.word().as_bytes(), b".", request] {
                context.update(part);
            }
            context.sign()
        };
        let (id, secret) = (part(b"id"), part(b"secret"));
        let (mut id_bytes, mut secret_bytes) = ([0; 16], [0; SECRET_BYTES]);
        id_bytes.copy_from_slice(&id.as_ref()[..16]);
        secret_bytes.copy_from_slice(secret.as_ref());
        let token = Token {
            kind,
            id: TokenId::from_u128(u128::from_be_bytes(id_bytes)),
            secret: Secret(secret_bytes),
            fingerprint,
        };
        secret_bytes.zeroize();
        token
    }

    /// The text of the token, secret included: for the one who is to use it, and nobody else.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let secret = self.secret.reveal();
        let (word, id, fingerprint) = (self.kind.word(), self.id, self.fingerprint);
        Zeroizing::new(format!("yard-{word}-{id}.{}.{fingerprint}", secret.as_str()))
    }
}

/// Why a text is no token. No part of the text is repeated: it may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error(
        "this is no token; one begins with yard-join-, yard-login-, yard-member- or \
             yard-renew-"
    )]
    NotAToken,
    /// It has fewer or more than three parts.
    #[error("the token has {0} parts between its dots, not 3; was it copied whole?")]
    Parts(usize),
    /// A part is damaged.
    #[error("the {0} of the token is damaged; was it copied whole?")]
    Damaged(&'static str),
    /// It is for something else.
    #[error("this token is for {found}, and {wanted} is what happens here", found = use_of(*.found),
        wanted = use_of(*.wanted))]
    OtherKind {
        /// What it is for.
        found: TokenKind,
        /// What was to be done.
        wanted: TokenKind,
    },
}

fn use_of(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Join => "a machine that joins",
        TokenKind::Login => "a user who logs in",
        TokenKind::Member => "a member of the coordinator that joins",
        TokenKind::Renew => "a node whose certificate ran out",
    }
}

impl Token {
    /// Reads a token that must be for one purpose.
    ///
    /// # Errors
    /// If it is damaged, or for something else.
    pub fn parse_for(wanted: TokenKind, text: &str) -> Result<Token, TokenError> {
        let token: Token = text.parse()?;
        if token.kind != wanted {
            return Err(TokenError::OtherKind { found: token.kind, wanted });
        }
        Ok(token)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        let begins = |kind: &TokenKind| {
            let rest = text.strip_prefix("yard-")?.strip_prefix(kind.word())?;
            rest.strip_prefix('-').map(|rest| (*kind, rest))
        };
        let found = TokenKind::ALL.iter().find_map(begins);
        let (kind, rest) = found.ok_or(TokenError::NotAToken)?;
        let parts: Vec<&str> = rest.split('.').take(5).collect();
        let [id, secret, fingerprint] = parts[..] else {
            return Err(TokenError::Parts(parts.len()));
        };
        let id = id.parse().map_err(|_| TokenError::Damaged("id"))?;
        let secret = Secret(unhex(secret).ok_or(TokenError::Damaged("secret"))?);
        let fingerprint = fingerprint.parse().map_err(|_| TokenError::Damaged("fingerprint"))?;
        Ok(Token { kind, id, secret, fingerprint })
    }
}

/// Reads 64 hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    if text.len() != HEX_CHARS {
        return None;
    }
    let bytes = Zeroizing::new(HEXLOWER.decode(text.as_bytes()).ok()?);
    bytes.as_slice().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::mint(TokenKind::Join, Fingerprint::of_bytes(b"some CA"))
    }

    #[test]
    fn a_token_reads_back() {
        let token = token();
        let text = token.reveal();
        assert!(text.starts_with("yard-join-"), "{}", text.as_str());
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert_eq!(format!("  {}\n", text.as_str()).parse::<Token>().unwrap(), token);
        assert_eq!(Token::parse_for(TokenKind::Join, &text).unwrap(), token);
        assert_eq!(Secret::from_text(&token.secret.reveal()).unwrap(), token.secret);
    }

    #[test]
    fn a_damaged_token_says_which_part() {
        let text = token().reveal().to_string();
        let parts: Vec<&str> = text.split('.').collect();
        let [id, secret, print] = parts[..] else { panic!("three parts") };
        for (bad, error) in [
            (String::new(), TokenError::NotAToken),
            ("yard-x-1.2.3".into(), TokenError::NotAToken),
            ("yard-join".into(), TokenError::NotAToken),
            (format!("{id}.{secret}"), TokenError::Parts(2)),
            (format!("{text}.a"), TokenError::Parts(4)),
            (format!("{id}0.{secret}.{print}"), TokenError::Damaged("id")),
            (format!("{id}.{}.{print}", &secret[1..]), TokenError::Damaged("secret")),
            (
                format!("{id}.{}.{print}", secret.replace(|_| true, "é")),
                TokenError::Damaged("secret"),
            ),
            (format!("{id}.{secret}.{}", &print[..60]), TokenError::Damaged("fingerprint")),
        ] {
            assert_eq!(bad.parse::<Token>(), Err(error), "{bad}");
        }
        let other = Token::parse_for(TokenKind::Login, &text).unwrap_err();
        assert!(other.to_string().contains("for a machine that joins"), "{other}");
    }

    #[test]
    fn neither_debug_nor_errors_show_a_secret() {
        let token = token();
        let secret = token.secret.reveal();
        let shown = format!("{token:?} {token:#?}");
        assert!(!shown.contains(&secret[..8]), "{shown}");
        assert!(shown.contains("Secret(...)") && !shown.contains("Secret(["));
        let damaged = token.reveal().replace("yard-join", "yard-jion");
        let error = damaged.parse::<Token>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&secret[..8]));
    }

    #[test]
    fn two_tokens_are_never_the_same() {
        assert_ne!(token().id, token().id);
        assert_ne!(token().secret.sha256(), token().secret.sha256());
    }
}

//! Error codes: stable names of what can go wrong. Each has a page `docs/errors/<CODE>.md` with
//! cause and remedy.

use std::fmt;

/// Declares the codes with number and title.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $title:literal;)+) => {
        /// A stable error code. `Y1...`: a job file; `Y2...`: refused by the cluster's state;
        /// `Y3...`: the machine of a coordinator.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)+
        }

        impl ErrorCode {
            /// Every code, in order.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),+];

            /// The number after the `Y`.
            #[must_use]
            pub fn number(self) -> u16 {
                match self { $(ErrorCode::$variant => $number,)+ }
            }

            /// One line for people; the first line of the code's page.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(ErrorCode::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    /// YAML or JSON that cannot be read.
    Syntax = 1001, "The file is not valid YAML or JSON";
    /// A key that the format does not have.
    UnknownField = 1002, "There is no such field";
    /// A value of the wrong kind.
    WrongType = 1003, "The value is of the wrong kind";
    /// A word outside a closed list.
    UnknownValue = 1004, "The value is not one of the known words";
    /// A number, length or count outside its range.
    OutOfRange = 1005, "The value is outside its range";
    /// A quantity without its unit, or with an unknown one.
    BadUnit = 1006, "The unit is missing or unknown";
    /// A required field is not there.
    FieldMissing = 1007, "A required field is missing";
    /// Fields that exclude each other.
    Conflict = 1008, "These fields exclude each other";
    /// The same key twice.
    DuplicateKey = 1009, "The same key stands twice";
    /// A plain scalar that YAML readers take for something else.
    AmbiguousScalar = 1010, "The value must be quoted";
    /// A name with illegal characters.
    BadName = 1011, "The name is not legal";
    /// A variable name that belongs to Trainyard.
    ReservedName = 1012, "The name is reserved";
    /// Too many bytes, levels or nodes.
    FileTooLarge = 1013, "The file is too large or too deep";
    /// A field whose feature is not built yet.
    NotInThisVersion = 1014, "The feature is not in this version";
    /// A path that is not absolute, or leaves its root.
    BadPath = 1015, "The path is not legal";
    /// A placeholder outside the closed list.
    BadPlaceholder = 1016, "There is no such placeholder";

    /// The object does not exist, or not for this principal.
    NotFound = 2001, "There is no such object";
    /// The name is taken, or the request id was used with another body.
    AlreadyExists = 2002, "It exists already";
    /// The principal may not do this.
    NotAllowed = 2003, "This is not allowed";
    /// The object is in a state in which this cannot be done.
    WrongState = 2004, "The state does not allow it";
    /// A limit would be passed.
    LimitReached = 2005, "A limit is reached";
    /// An argument is outside what the state machine accepts.
    InvalidArgument = 2006, "An argument is not valid";
    /// The object changed since it was read.
    Changed = 2007, "It changed in the meantime";
    /// The command comes from a leader that was replaced.
    StaleLeader = 2008, "The leader was replaced";
    /// The report is of an attempt, lease or generation that was replaced.
    Stale = 2009, "It was replaced by a newer one";
    /// The placement does not fit the state as it is now.
    DoesNotFit = 2010, "The placement does not fit any more";
    /// The object is still in use.
    InUse = 2011, "It is still in use";
    /// The token is unknown, used, expired, or for something else.
    BadToken = 2012, "The token is not valid";
    /// The feature level of the cluster does not allow it yet.
    FeatureLevelTooLow = 2013, "The cluster's feature level is too low";
    /// The queue takes no jobs at present.
    QueueClosed = 2014, "The queue is closed";
    /// The principal is disabled or revoked.
    Revoked = 2015, "The identity is disabled or revoked";

    /// The disks of too many coordinators have no room for new work.
    DiskFull = 3001, "The coordinator's disk is full";
    /// What the disk of a coordinator holds is not what was written.
    FolderDamaged = 3002, "The data folder is damaged";
    /// The folder is of another member, cluster, life or version.
    FolderForeign = 3003, "The data folder belongs to another member or version";
    /// The folder lacks what its member is known to have had.
    FolderOutdated = 3004, "The data folder is an older copy";
    /// A member has come to another state than the others.
    MembersDiffer = 3005, "The coordinator differs from the others";
    /// A backup is damaged, not whole, or of a version that is not understood.
    BadBackup = 3006, "The backup cannot be used";
    /// A member's program does not understand what the cluster may write, or is to write.
    VersionTooOld = 3007, "The coordinator's version is too old";
    /// A member was removed, or is of a life of the cluster that ended with a restore.
    NotAMember = 3008, "The coordinator is not part of the cluster any more";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Y{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn numbers_rise_and_are_unique() {
        for pair in ErrorCode::ALL.windows(2) {
            assert!(pair[0].number() < pair[1].number(), "{} {}", pair[0], pair[1]);
        }
    }
}

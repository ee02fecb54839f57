//! The rules: what each is called, what it looks for, how grave it is, and the sentence that people read.

/// What an attack attacks. The name is the family's id, the label what a refusal says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// A value that changes a query.
    SqlInjection,
    /// Markup or a URL that runs a script.
    Xss,
    /// Line ends that begin a header.
    CrlfInjection,
    /// A path that leaves where it may be.
    PathTraversal,
    /// A value that starts a command.
    CommandInjection,
    /// A key that changes what all objects have.
    PrototypePollution,
    /// A character that ends a string where others read on.
    NullByte,
    /// A value that is not what the policy says it is.
    Format,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SqlInjection,
        Self::Xss,
        Self::CrlfInjection,
        Self::PathTraversal,
        Self::CommandInjection,
        Self::PrototypePollution,
        Self::NullByte,
        Self::Format,
    ];

    /// Its name in the policy, in audit lines and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SqlInjection => "sql-injection",
            Self::Xss => "xss",
            Self::CrlfInjection => "crlf-injection",
            Self::PathTraversal => "path-traversal",
            Self::CommandInjection => "command-injection",
            Self::PrototypePollution => "prototype-pollution",
            Self::NullByte => "null-byte",
            Self::Format => "format",
        }
    }
}

/// How much harm there is in what a rule finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A sign of an attempt.
    Low,
    /// Harm under conditions.
    Medium,
    /// Harm where the value is used carelessly.
    High,
    /// Control over a system behind.
    Critical,
}

impl Severity {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident = $id:literal, $class:ident, $severity:ident, $label:literal;)+) => {
        /// A rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum RuleId { $($(#[doc = $doc])+ $name,)+ }

        impl RuleId {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its id.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)+ }
            }

            /// What it attacks.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)+ }
            }

            /// How grave it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// What a refusal says was found, after `Invalid input for "FIELD": `.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// What it looks for, in a sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

rules! {
    /// A second SELECT is joined to a query with UNION, EXCEPT, INTERSECT or MINUS.
    SqlUnion = "sql-union", SqlInjection, Critical, "SQL that adds a query";
    /// A condition that is true or false whatever the data, such as OR 1=1.
    SqlCondition = "sql-condition", SqlInjection, High, "SQL that changes a condition";
    /// A second SQL statement, a delay, or a write to a file.
    SqlStatement = "sql-statement", SqlInjection, Critical, "a second SQL statement";
    /// A call of an SQL function that waits, reads files, reaches out or makes errors tell.
    SqlFunction = "sql-function", SqlInjection, Critical, "a call of an SQL function";
    /// A query, or a part of one, where a value should be.
    SqlQuery = "sql-query", SqlInjection, High, "a part of an SQL query";
    /// An end of a string with a comment that cuts off the rest of the query.
    SqlComment = "sql-comment", SqlInjection, High, "SQL that cuts a query off";
    /// A script element.
    XssScript = "xss-script", Xss, High, "markup that runs a script";
    /// An attribute that runs a script on an event.
    XssEvent = "xss-event", Xss, High, "markup that runs a script on an event";
    /// A URL that is a script.
    XssUrl = "xss-url", Xss, High, "a URL that runs a script";
    /// An element that loads or embeds what can run scripts.
    XssElement = "xss-element", Xss, Medium, "markup that embeds active content";
    /// A style that runs a script or loads another style.
    XssStyle = "xss-style", Xss, Medium, "a style that runs a script";
    /// JavaScript that begins where a string of a page ends, or hides what it calls.
    XssCode = "xss-code", Xss, High, "JavaScript in place of a value";
    /// A line end with a header, a status line or a protocol's command behind it.
    CrlfHeader = "crlf-header", CrlfInjection, High, "line breaks that begin a header";
    /// A line end in a header's value.
    CrlfLine = "crlf-line", CrlfInjection, High, "line breaks in a header";
    /// A filter of a directory search that is closed and begun anew.
    LdapFilter = "ldap-filter", CrlfInjection, High, "a changed LDAP filter";
    /// A path that climbs out of its directory.
    PathClimb = "path-climb", PathTraversal, High, "a path that leaves its directory";
    /// A path to a file that tells a system's secrets.
    PathFile = "path-file", PathTraversal, High, "a path to a system file";
    /// A path in a disguise that no honest path needs.
    PathDisguise = "path-disguise", PathTraversal, High, "a disguised path";
    /// An operator of the shell with a command behind it.
    ShellCommand = "shell-command", CommandInjection, Critical, "a shell command";
    /// A command or variable that the shell puts in place of its text.
    ShellSubstitution = "shell-substitution", CommandInjection, Critical, "a shell substitution";
    /// A word of a command in a disguise of quotes, escapes, wildcards or variables.
    ShellDisguise = "shell-disguise", CommandInjection, Critical, "a disguised shell command";
    /// A path of a program with what would start it.
    ShellProgram = "shell-program", CommandInjection, High, "a program to be started";
    /// Code of an interpreter that starts commands, or a lookup that fetches code.
    ShellCode = "shell-code", CommandInjection, Critical, "code that starts commands";
    /// A key that reaches what all objects have.
    PrototypeKey = "prototype-key", PrototypePollution, High, "a key that changes prototypes";
    /// A NUL character, as it is or in a disguise.
    NullByte = "null-byte", NullByte, High, "a null byte";
    /// Not a telephone number in E.164: a plus sign and up to 15 digits.
    NotPhone = "not-phone", Format, Low, "must be a phone number such as +14155550100";
    /// Not an e-mail address.
    NotEmail = "not-email", Format, Low, "must be an e-mail address";
    /// Not a URL with a scheme that is allowed.
    NotUrl = "not-url", Format, Medium, "must be a http or https URL";
    /// A pattern of the policy.
    Custom = "custom", Format, High, "a pattern that the policy refuses";
}

/// Which rules are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleSet(u64);

impl RuleSet {
    /// None.
    pub const NONE: Self = Self(0);
    /// All.
    pub const ALL: Self = Self(u64::MAX);

    /// The rules of a class or the rule of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let class = Class::ALL.into_iter().find(|class| class.name() == name).map(Self::of);
        class.or_else(|| RuleId::ALL.iter().find(|rule| rule.id() == name).map(|rule| Self::NONE.with(*rule)))
    }

    /// Is the rule on?
    #[must_use]
    pub const fn has(self, rule: RuleId) -> bool {
        self.0 & (1 << rule as u8) != 0
    }

    /// With the rule.
    #[must_use]
    pub const fn with(self, rule: RuleId) -> Self {
        Self(self.0 | 1 << rule as u8)
    }

    /// Without the rule.
    #[must_use]
    pub const fn without(self, rule: RuleId) -> Self {
        Self(self.0 & !(1 << rule as u8))
    }

    /// The rules of a class.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        let mut set = Self::NONE;
        let mut rest = RuleId::ALL;
        while let [rule, tail @ ..] = rest {
            if rule.class() as u8 == class as u8 {
                set = set.with(*rule);
            }
            rest = tail;
        }
        set
    }

    /// Those in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those not in the other.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Is any of the other's on?
    #[must_use]
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// What was found: the rule, and where in the text that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: RuleId,
    /// The byte in the decoded value where what it found begins; in a disguised value, where it begins once the disguise is off.
    pub at: usize,
    /// Whether a disguise had to be taken off first.
    pub disguised: bool,
}

/// A text and the rules that look at it.
pub(super) struct Looker<'t> {
    /// In lower case.
    pub(super) text: &'t [u8],
    pub(super) on: RuleSet,
    /// The signs that it has.
    pub(super) marks: super::text::Marks,
    /// The phrases that it has.
    pub(super) has: super::phrases::Has,
    /// The text has had a disguise taken off: what is plain in it was not plain before.
    pub(super) peeled: bool,
}

impl Looker<'_> {
    /// A finding, if its rule is on.
    pub(super) fn found(&self, rule: RuleId, at: usize) -> Option<Finding> {
        self.on.has(rule).then_some(Finding { rule, at, disguised: self.peeled })
    }
}

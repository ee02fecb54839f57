//! The schema, as the steps that lead to it.
//!
//! Step N takes a database from `user_version` N to N + 1, in one transaction ([`super::open`]). A step that was released is never changed;
//! what is wrong in it is mended by a further one. Tables are STRICT. Times are milliseconds since the Unix epoch.

/// In the order in which they are taken. New ones go to the end.
pub(super) const STEPS: &[&str] = &[TOKENS, SESSIONS, CREDENTIALS, ALERTS, BLOCKS, SPEND, AGENT_LIMITS, TOOL_PINS];

/// Tokens of agents. What is shown once is not here, only its SHA-256.
const TOKENS: &str = "
    CREATE TABLE tokens (
        id           TEXT PRIMARY KEY CHECK (length(id) = 20),
        sha256       BLOB NOT NULL CHECK (length(sha256) = 32),
        agent        TEXT NOT NULL CHECK (length(agent) BETWEEN 1 AND 128),
        label        TEXT NOT NULL,
        issued_ms    INTEGER NOT NULL,
        expires_ms   INTEGER,
        revoked_ms   INTEGER,
        last_used_ms INTEGER,
        replaced_by  TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tokens_by_agent ON tokens (agent, id);
";

/// Sessions of agents that are open. A row ends with its session.
const SESSIONS: &str = "
    CREATE TABLE sessions (
        sid            BLOB PRIMARY KEY CHECK (length(sid) = 16),
        agent          TEXT NOT NULL CHECK (length(agent) BETWEEN 1 AND 128),
        token_sha256   BLOB NOT NULL CHECK (length(token_sha256) = 32),
        refresh_sha256 BLOB NOT NULL CHECK (length(refresh_sha256) = 32),
        opened_ms      INTEGER NOT NULL,
        last_used_ms   INTEGER NOT NULL,
        expires_ms     INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// Credentials of the vault, sealed. Every column is bound to what is sealed.
const CREDENTIALS: &str = "
    CREATE TABLE credentials (
        name       TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),
        key_id     BLOB NOT NULL CHECK (length(key_id) = 8),
        revision   INTEGER NOT NULL CHECK (revision > 0),
        updated_ms INTEGER NOT NULL,
        nonce      BLOB NOT NULL CHECK (length(nonce) = 12),
        sealed     BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// Alerts that were raised. `delivery`: 0 not for the webhook, 1 to be delivered, 2 delivered, 3 given up.
const ALERTS: &str = "
    CREATE TABLE alerts (
        id        TEXT PRIMARY KEY CHECK (length(id) = 24),
        raised_ms INTEGER NOT NULL,
        kind      TEXT NOT NULL,
        agent     TEXT,
        address   TEXT,
        details   TEXT NOT NULL,
        delivery  INTEGER NOT NULL CHECK (delivery BETWEEN 0 AND 3)
    ) STRICT, WITHOUT ROWID;
";

/// Blocks of addresses and networks that hold.
const BLOCKS: &str = "
    CREATE TABLE blocks (
        network  TEXT PRIMARY KEY CHECK (length(network) BETWEEN 1 AND 43),
        kind     TEXT NOT NULL,
        earned   TEXT NOT NULL,
        reason   TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        until_ms INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX blocks_by_end ON blocks (until_ms);
";

/// The ledger. Amounts are micro-dollars, days are counted from 1970-01-01.
const SPEND: &str = "
    CREATE TABLE spend_open (
        id       INTEGER PRIMARY KEY,
        payer    TEXT NOT NULL,
        upstream TEXT NOT NULL,
        tool     TEXT NOT NULL,
        day      INTEGER NOT NULL,
        microusd INTEGER NOT NULL,
        at_ms    INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE spend_days (
        day                INTEGER NOT NULL,
        payer              TEXT NOT NULL,
        upstream           TEXT NOT NULL,
        tool               TEXT NOT NULL,
        calls              INTEGER NOT NULL,
        microusd           INTEGER NOT NULL,
        unsettled_calls    INTEGER NOT NULL,
        unsettled_microusd INTEGER NOT NULL,
        PRIMARY KEY (day, payer, upstream, tool)
    ) STRICT, WITHOUT ROWID;
";

/// Limits that operators have given agents. A number that is not given is NULL.
const AGENT_LIMITS: &str = "
    CREATE TABLE agent_limits (
        agent                    TEXT PRIMARY KEY CHECK (length(agent) BETWEEN 1 AND 128),
        per_minute               INTEGER CHECK (per_minute BETWEEN 0 AND 1000000000),
        per_hour                 INTEGER CHECK (per_hour BETWEEN 0 AND 1000000000),
        per_day                  INTEGER CHECK (per_day BETWEEN 0 AND 1000000000),
        same_number_per_day      INTEGER CHECK (same_number_per_day BETWEEN 0 AND 1000000000),
        spend_per_day_microusd   INTEGER CHECK (spend_per_day_microusd >= 0),
        spend_per_month_microusd INTEGER CHECK (spend_per_month_microusd >= 0),
        updated_ms               INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// The descriptions of tools, by their hashes: which one was accepted, and which one was seen last.
const TOOL_PINS: &str = "
    CREATE TABLE tool_pins (
        upstream TEXT NOT NULL,
        tool     TEXT NOT NULL,
        accepted BLOB NOT NULL CHECK (length(accepted) = 32),
        seen     BLOB NOT NULL CHECK (length(seen) = 32),
        since_ms INTEGER NOT NULL,
        PRIMARY KEY (upstream, tool)
    ) STRICT, WITHOUT ROWID;
";

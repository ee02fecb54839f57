//! The words of SQL that rules ask about, and what each is to them. Facts of the dialects of MySQL, PostgreSQL, SQL Server, Oracle, SQLite and DB2.

use super::tokens::Token;

/// Words and what they are. A word that is not here is a name.
const WORDS: &[(&[u8], Token)] = &[
    (b"all", Token::Filler),
    (b"alter", Token::Define),
    (b"and", Token::Logic),
    (b"as", Token::As),
    (b"asc", Token::Filler),
    (b"begin", Token::Begin),
    (b"between", Token::Like),
    (b"binary", Token::Filler),
    (b"by", Token::By),
    (b"call", Token::Execute),
    (b"case", Token::Case),
    (b"collate", Token::Collate),
    (b"column", Token::Object),
    (b"create", Token::Define),
    (b"database", Token::Object),
    (b"declare", Token::Declare),
    (b"delay", Token::Delay),
    (b"delete", Token::Delete),
    (b"desc", Token::Filler),
    (b"distinct", Token::Filler),
    (b"distinctrow", Token::Filler),
    (b"div", Token::Arithmetic),
    (b"drop", Token::Define),
    (b"dumpfile", Token::File),
    (b"else", Token::Else),
    (b"end", Token::End),
    (b"escape", Token::Collate),
    (b"except", Token::Union),
    (b"exec", Token::Execute),
    (b"execute", Token::Execute),
    (b"exists", Token::Not),
    (b"false", Token::Number),
    (b"from", Token::From),
    (b"function", Token::Object),
    (b"glob", Token::Like),
    (b"grant", Token::Define),
    (b"group", Token::Sort),
    (b"having", Token::Having),
    (b"ilike", Token::Like),
    (b"in", Token::Like),
    (b"index", Token::Object),
    (b"infile", Token::File),
    (b"insert", Token::Insert),
    (b"intersect", Token::Union),
    (b"into", Token::Into),
    (b"is", Token::Like),
    (b"isnull", Token::Like),
    (b"join", Token::From),
    (b"like", Token::Like),
    (b"likely", Token::Not),
    (b"limit", Token::Limit),
    (b"load", Token::Load),
    (b"merge", Token::Define),
    (b"minus", Token::Union),
    (b"mod", Token::Arithmetic),
    (b"not", Token::Not),
    (b"notnull", Token::Like),
    (b"null", Token::Number),
    (b"offset", Token::Limit),
    (b"or", Token::Logic),
    (b"order", Token::Sort),
    (b"outfile", Token::File),
    (b"procedure", Token::Procedure),
    (b"regexp", Token::Like),
    (b"replace", Token::Insert),
    (b"revoke", Token::Define),
    (b"rlike", Token::Like),
    (b"schema", Token::Object),
    (b"select", Token::Select),
    (b"set", Token::Set),
    (b"shutdown", Token::Shutdown),
    (b"similar", Token::Like),
    (b"sounds", Token::Like),
    (b"table", Token::Object),
    (b"then", Token::Then),
    (b"trigger", Token::Object),
    (b"true", Token::Number),
    (b"truncate", Token::Define),
    (b"union", Token::Union),
    (b"unlikely", Token::Not),
    (b"update", Token::Update),
    (b"user", Token::Object),
    (b"using", Token::Collate),
    (b"values", Token::Values),
    (b"view", Token::Object),
    (b"waitfor", Token::Waitfor),
    (b"when", Token::When),
    (b"where", Token::Where),
    (b"xml", Token::Filler),
    (b"xor", Token::Logic),
];

/// Functions that an injection calls and a person's text does not: they wait, read files, reach out, or make the error tell.
const GRAVE: &[&[u8]] = &[
    b"benchmark",
    b"database_to_xml",
    b"dbms_java.runjava",
    b"dbms_java_test.funcall",
    b"dbms_ldap.init",
    b"dbms_lock.sleep",
    b"dbms_pipe.receive_message",
    b"dbms_utility.sqlid_to_sqlhash",
    b"dbms_xmlquery",
    b"extractvalue",
    b"generate_series",
    b"geometrycollection",
    b"lo_export",
    b"lo_from_bytea",
    b"lo_get",
    b"lo_import",
    b"load_file",
    b"make_set",
    b"master..xp_cmdshell",
    b"name_const",
    b"opendatasource",
    b"openquery",
    b"openrowset",
    b"pg_ls_dir",
    b"pg_read_file",
    b"pg_sleep",
    b"query_to_xml",
    b"randomblob",
    b"regexp_substring",
    b"sp_executesql",
    b"sp_oacreate",
    b"sp_password",
    b"sys_eval",
    b"sys_exec",
    b"updatexml",
    b"user_lock.sleep",
    b"utl_file.fopen",
    b"utl_http.request",
    b"utl_inaddr.get_host_address",
    b"utl_inaddr.get_host_name",
    b"xmltype",
    b"xp_cmdshell",
    b"xp_dirtree",
    b"xp_fileexist",
    b"xp_regread",
];

/// Functions that an injection composes values from. They are ordinary words, so they count only where an injection has begun.
const COMMON: &[&[u8]] = &[
    b"abs",
    b"aes_decrypt",
    b"aes_encrypt",
    b"array_agg",
    b"ascii",
    b"atan",
    b"bin",
    b"bit_count",
    b"cast",
    b"ceil",
    b"char",
    b"char_length",
    b"chr",
    b"coalesce",
    b"compress",
    b"concat",
    b"concat_ws",
    b"conv",
    b"convert",
    b"cos",
    b"count",
    b"curdate",
    b"current_timestamp",
    b"current_user",
    b"curtime",
    b"database",
    b"datediff",
    b"dcount",
    b"decode",
    b"degrees",
    b"des_encrypt",
    b"elt",
    b"encode",
    b"exists",
    b"exp",
    b"export_set",
    b"extract",
    b"field",
    b"find_in_set",
    b"floor",
    b"format_bytes",
    b"found_rows",
    b"get_lock",
    b"greatest",
    b"group_concat",
    b"hex",
    b"if",
    b"ifnull",
    b"iif",
    b"insert",
    b"instr",
    b"interval",
    b"is_free_lock",
    b"is_srvrolemember",
    b"isnull",
    b"json_array",
    b"json_extract",
    b"json_keys",
    b"jsonb",
    b"last_insert_id",
    b"lcase",
    b"least",
    b"left",
    b"length",
    b"like",
    b"ln",
    b"locate",
    b"log",
    b"lower",
    b"lpad",
    b"ltrim",
    b"max",
    b"md5",
    b"mid",
    b"min",
    b"mod",
    b"now",
    b"nullif",
    b"nvl",
    b"octet_length",
    b"ord",
    b"overlay",
    b"pi",
    b"polygon",
    b"position",
    b"pow",
    b"power",
    b"quarter",
    b"quote",
    b"radians",
    b"rand",
    b"repeat",
    b"replace",
    b"reverse",
    b"right",
    b"round",
    b"row",
    b"row_count",
    b"rpad",
    b"schema",
    b"session_user",
    b"sha",
    b"sha1",
    b"sha2",
    b"sign",
    b"sin",
    b"sinh",
    b"sleep",
    b"soundex",
    b"space",
    b"sqrt",
    b"starts_with",
    b"strcmp",
    b"substr",
    b"substring",
    b"sum",
    b"sysdate",
    b"system_user",
    b"tan",
    b"to_base64",
    b"to_char",
    b"trim",
    b"truncate",
    b"ucase",
    b"unhex",
    b"unistr",
    b"upper",
    b"user",
    b"utc_time",
    b"uuid",
    b"values",
    b"version",
    b"xmlagg",
    b"xmlrow",
];

/// For each first letter, the lengths of words that begin with it, one bit each: most words of a text are no word of SQL, and this says so
/// without comparing any.
const LENGTHS: [u32; 26] = {
    let mut table = [0u32; 26];
    let mut rest = WORDS;
    while let [(word, _), tail @ ..] = rest {
        if let [first, ..] = word {
            let (_, places) = table.split_at_mut((*first - b'a') as usize);
            if let [place, ..] = places {
                *place |= 1 << word.len();
            }
        }
        rest = tail;
    }
    table
};

/// What a word is, in lower case.
#[inline]
pub(super) fn classify(word: &[u8]) -> Token {
    let Some(first) = word.first() else { return Token::Name };
    let lengths = LENGTHS.get(usize::from(first.wrapping_sub(b'a'))).copied().unwrap_or(0);
    if word.len() > 11 || lengths & (1 << word.len()) == 0 {
        return Token::Name;
    }
    WORDS
        .binary_search_by(|(known, _)| (*known).cmp(word))
        .ok()
        .and_then(|at| WORDS.get(at))
        .map_or(Token::Name, |(_, token)| *token)
}

/// What a name is that an opening parenthesis follows, in lower case.
pub(super) fn function(name: &[u8]) -> Token {
    if GRAVE.binary_search(&name).is_ok() {
        Token::Grave
    } else if COMMON.binary_search(&name).is_ok() {
        Token::Function
    } else {
        Token::Call
    }
}

/// Whether the name itself, without a call, belongs to a database's own catalogue or to a procedure that no text speaks of in passing.
pub(super) fn is_catalogue(name: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 12] = [
        b"information_schema.",
        b"mysql.",
        b"sys.",
        b"sysibm.",
        b"pg_catalog.",
        b"master..",
        b"sqlite_master",
        b"msysaccessobjects",
        b"all_tables",
        b"sysobjects",
        b"syscolumns",
        b"`information_schema",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::super::{begins, is_operator};
    use super::*;

    #[test]
    fn tables_are_sorted_for_the_search() {
        assert!(WORDS.is_sorted_by_key(|(word, _)| *word));
        assert!(GRAVE.is_sorted());
        assert!(COMMON.is_sorted());
    }

    #[test]
    fn words_are_found_and_others_are_not() {
        assert_eq!(classify(b"union"), Token::Union);
        assert_eq!(classify(b"distinctrow"), Token::Filler);
        assert_eq!(classify(b"unions"), Token::Name);
        assert_eq!(classify(b""), Token::Name);
        assert_eq!(classify("é".as_bytes()), Token::Name);
        assert_eq!(function(b"pg_sleep"), Token::Grave);
        assert_eq!(function(b"concat"), Token::Function);
        assert_eq!(function(b"greet"), Token::Call);
    }

    #[test]
    fn every_word_that_goes_on_with_a_query_begins_one() {
        let operators: Vec<_> = WORDS.iter().map(|(word, _)| *word).filter(|word| is_operator(word)).collect();
        assert!(operators.len() > 25);
        for word in operators {
            let text = [word, b" (1"].concat();
            assert!(begins(&text, 0), "{}", String::from_utf8_lossy(&text));
        }
        for text in ["reminders (1", "anchor (1", "prose (1", "is it"] {
            assert!(!begins(text.as_bytes(), 0), "{text}");
        }
    }
}

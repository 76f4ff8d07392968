//! Scans a statement before the engine gets it. The server must know where the data of an `INSERT`
//! begins, which format the statement names, and whether its result can be streamed. This is a
//! scanner of tokens and not a parser. It passes on unchanged what it does not understand, and the
//! engine's own parser decides.

use super::engine::Name;
use super::exception::{Exception, SYNTAX_ERROR};
use super::quote::quote;
use std::collections::BTreeMap;
use std::ops::Range;

/// How to run a statement.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// An `INSERT` with data: `head` is the statement up to its `FORMAT` or `VALUES`, and the data
    /// begins at `data`.
    Insert {
        /// The statement without its `FORMAT` clause.
        head: Range<usize>,
        /// The format that the statement names, or else the request.
        format: String,
        /// Where the data begins.
        data: usize,
    },
    Other {
        /// The format that the statement itself names.
        format: Option<String>,
        /// A `SELECT` whose result the engine can return in chunks that simply follow each other.
        streamable: bool,
        /// `SET` or `USE`, which change the session.
        session: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    Quoted,
    Other,
}

#[derive(Clone, Copy, Debug)]
struct Token<'t> {
    kind: Kind,
    text: &'t [u8],
    start: usize,
    /// How many brackets are open around the token.
    depth: usize,
}

impl Token<'_> {
    fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    fn is_char(&self, character: u8) -> bool {
        self.kind == Kind::Other && self.text == [character]
    }

    const fn end(&self) -> usize {
        self.start + self.text.len()
    }
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
    depth: usize,
}

impl<'t> Scanner<'t> {
    const fn new(text: &'t [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// Moves past the first occurrence of `end`, or to the end of the text.
    fn skip_past(&mut self, end: &[u8]) {
        let rest = &self.text[self.at..];
        let found = rest.windows(end.len()).position(|window| window == end);
        self.at += found.map_or(rest.len(), |found| found + end.len());
    }

    fn skip_blank(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            match (byte, self.text.get(self.at + 1)) {
                (byte, _) if byte.is_ascii_whitespace() || *byte == 0x0b => self.at += 1,
                (b'-', Some(b'-')) | (b'#', Some(b' ' | b'!')) => self.skip_past(b"\n"),
                (b'/', Some(b'*')) => {
                    self.at += 2;
                    self.skip_past(b"*/");
                }
                _ => return,
            }
        }
    }

    /// Moves past a quoted text. A backslash escapes the next byte, and a doubled quote stands for
    /// one.
    fn skip_quoted(&mut self, quote: u8) {
        self.at += 1;
        while let Some(byte) = self.text.get(self.at) {
            if *byte == b'\\' || (*byte == quote && self.text.get(self.at + 1) == Some(&quote)) {
                self.at += 2;
                continue;
            }
            self.at += 1;
            if *byte == quote {
                break;
            }
        }
        self.at = self.at.min(self.text.len());
    }

    /// Moves past `$tag$ ... $tag$`, or past the dollar sign alone.
    fn skip_heredoc(&mut self) {
        let rest = &self.text[self.at + 1..];
        let tag = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        if rest.get(tag) == Some(&b'$') {
            let fence = self.text[self.at..self.at + tag + 2].to_vec();
            self.at += fence.len();
            self.skip_past(&fence);
        } else {
            self.at += 1;
        }
    }
}

impl<'t> Iterator for Scanner<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        self.skip_blank();
        let (start, depth) = (self.at, self.depth);
        let byte = *self.text.get(start)?;
        let kind = match byte {
            b'\'' => {
                self.skip_quoted(byte);
                Kind::Other
            }
            b'"' | b'`' => {
                self.skip_quoted(byte);
                Kind::Quoted
            }
            b'$' => {
                self.skip_heredoc();
                Kind::Other
            }
            byte if is_word(byte) => {
                self.at += self.text[start..].iter().take_while(|byte| is_word(**byte)).count();
                if byte.is_ascii_digit() { Kind::Other } else { Kind::Word }
            }
            byte => {
                match byte {
                    b'(' | b'[' | b'{' => self.depth += 1,
                    b')' | b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                self.at += 1;
                Kind::Other
            }
        };
        Some(Token { kind, text: &self.text[start..self.at], start, depth })
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Reads the plan of a statement. The data of an `INSERT` may follow in `text`, and may be any
/// bytes. `url` is the length of the SQL that came in the URL, and a format. If an `INSERT` ends
/// there without a format for its data, this format applies.
///
/// # Errors
/// Requests that the server does not support: several statements in one request, files on the
/// client's side, an empty statement.
pub fn plan(text: &[u8], url: Option<(usize, &str)>) -> Result<Plan, Exception> {
    let mut scanner = Scanner::new(text);
    let Some(first) = scanner.find(|token| !token.is_char(b'(')) else {
        return Err(Exception::new(SYNTAX_ERROR, "SYNTAX_ERROR", "Empty query"));
    };
    if first.is("INSERT")
        && let Some(plan) = insert_plan(scanner, text, url)?
    {
        return Ok(plan);
    }
    other_plan(text, &first)
}

/// The plan of an `INSERT` with data, `None` for `INSERT ... SELECT`.
fn insert_plan(mut scanner: Scanner<'_>, text: &[u8], url: Option<(usize, &str)>) -> Result<Option<Plan>, Exception> {
    // The table itself may be called `values` or `format`.
    let mut token = scanner.find(|token| !["INTO", "TABLE", "FUNCTION"].iter().any(|keyword| token.is(keyword)));
    token = scanner.next().filter(|_| token.is_some());
    while token.is_some_and(|token| token.is_char(b'.')) {
        token = scanner.next().and_then(|_| scanner.next());
    }
    while let Some(word) = token.filter(|token| url.is_none_or(|(length, _)| token.start < length)) {
        if word.depth == 0 && word.is("VALUES") {
            return Ok(Some(Plan::Insert { head: 0..word.start, format: "Values".to_owned(), data: word.end() }));
        }
        if word.depth == 0 && word.is("FORMAT") {
            let Some(name) = scanner.next().filter(|name| name.kind == Kind::Word) else { return Ok(None) };
            let format = String::from_utf8_lossy(name.text).into_owned();
            let data = data_start(text, name.end())?;
            return Ok(Some(Plan::Insert { head: 0..word.start, format, data }));
        }
        if word.is("INFILE") {
            return Err(Exception::new(
                78,
                "UNKNOWN_TYPE_OF_QUERY",
                "Query has infile and was sent directly to the server",
            ));
        }
        if ["SELECT", "WITH"].iter().any(|keyword| word.is(keyword)) {
            return Ok(None);
        }
        token = scanner.next();
    }
    let Some((length, format)) = url else { return Ok(None) };
    let data = data_start(text, length)?;
    Ok(Some(Plan::Insert { head: 0..length, format: format.to_owned(), data }))
}

/// Where the data begins. ClickHouse's rule: blanks after the name of the format, and then at most
/// one line end, do not belong to the data.
fn data_start(text: &[u8], mut at: usize) -> Result<usize, Exception> {
    while matches!(text.get(at), Some(b' ' | b'\t' | 0x0c)) {
        at += 1;
    }
    if text.get(at) == Some(&b';') {
        let message = "You have excessive ';' symbol before data for INSERT";
        return Err(Exception::new(SYNTAX_ERROR, "SYNTAX_ERROR", message));
    }
    at += usize::from(text.get(at) == Some(&b'\r'));
    at += usize::from(text.get(at) == Some(&b'\n'));
    Ok(at)
}

/// Rewrites a `KILL QUERY` that names statements by the ids that clients gave them, because the
/// engine uses its own ids. `None`: the statement stays unchanged.
///
/// A reader may only send `KILL QUERY WHERE query_id = 'NAME'`. The statement is written anew,
/// because it runs with the owner's rights; it only finds statements of readers.
pub fn kill(text: &[u8], names: impl FnOnce() -> BTreeMap<String, Name>, owner: bool) -> Option<Vec<u8>> {
    // Other statements may be long, so only their first token is read.
    Scanner::new(text).next().filter(|first| first.is("KILL"))?;
    let tokens: Vec<Token<'_>> = Scanner::new(text).collect();
    let [kill, query, condition, rest @ ..] = tokens.as_slice() else { return None };
    if !(kill.is("KILL") && query.is("QUERY") && condition.is("WHERE")) {
        return None;
    }
    let names = names();
    let named: Vec<_> = names.iter().filter(|(_, name)| owner || !name.owner).collect();
    let list =
        |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| quote(text, '\'')).collect::<Vec<_>>().join(", ");
    // The first entry matches no statement. It is there because an array must not be empty.
    let keys = list(&mut std::iter::once("-").chain(named.iter().map(|(key, _)| key.as_str())));
    let ids = list(&mut std::iter::once("-").chain(named.iter().map(|(_, name)| name.query_id.as_str())));
    let name = |other: &str| format!("transform(Settings['log_comment'], [{keys}], [{ids}], {other})");
    if !owner {
        let (id, how) = named_by_reader(rest)?;
        return Some(format!("KILL QUERY WHERE {} = '{id}' {how}", name("''")).into_bytes());
    }
    let (name, mut rewritten, mut at) = (name("query_id"), Vec::new(), 0);
    for token in rest.iter().filter(|token| is_query_id(token)) {
        rewritten.extend_from_slice(&text[at..token.start]);
        rewritten.extend_from_slice(name.as_bytes());
        at = token.end();
    }
    rewritten.extend_from_slice(&text[at..]);
    Some(rewritten)
}

/// The condition after `WHERE`: `query_id = 'NAME'` with a plain, non-empty name, and an optional
/// word that says whether to wait.
fn named_by_reader<'t>(tokens: &[Token<'t>]) -> Option<(&'t str, &'static str)> {
    let [id, equal, literal, rest @ ..] = tokens else { return None };
    let name = std::str::from_utf8(literal.text).ok()?.strip_prefix('\'')?.strip_suffix('\'')?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let plain = !name.is_empty() && name != "-" && name.bytes().all(is_plain);
    let rest = match rest {
        [rest @ .., last] if last.is_char(b';') => rest,
        rest => rest,
    };
    let how = match rest {
        [] => "ASYNC",
        [how] => ["SYNC", "ASYNC", "TEST"].into_iter().find(|known| how.is(known))?,
        _ => return None,
    };
    (is_query_id(id) && equal.is_char(b'=') && plain).then_some((name, how))
}

fn is_query_id(token: &Token<'_>) -> bool {
    token.is("query_id") || matches!(token.text, b"`query_id`" | b"\"query_id\"")
}

fn other_plan(text: &[u8], first: &Token<'_>) -> Result<Plan, Exception> {
    let tokens: Vec<Token<'_>> = Scanner::new(text).collect();
    let (mut format, mut whole) = (None, false);
    for (index, token) in tokens.iter().enumerate() {
        let next = tokens.get(index + 1);
        if token.is_char(b';') && token.depth == 0 && tokens[index..].iter().any(|token| !token.is_char(b';')) {
            let message =
                format!("Syntax error (Multi-statements are not allowed): failed at position {}", token.start + 1);
            return Err(Exception::new(SYNTAX_ERROR, "SYNTAX_ERROR", message));
        }
        if token.is("INTO") && next.is_some_and(|next| next.is("OUTFILE")) {
            return Err(Exception::new(358, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed"));
        }
        if token.is("FORMAT")
            && token.depth == 0
            && let Some(name) = next.filter(|name| name.kind == Kind::Word)
            && tokens.get(index + 2).is_none_or(|after| after.is_char(b';') || after.is("SETTINGS"))
        {
            format = Some(String::from_utf8_lossy(name.text).into_owned());
        }
        // These put rows after the rows or brackets around them, so the chunks do not simply follow
        // each other.
        whole |= ["TOTALS", "extremes", "output_format_json_array_of_rows"].iter().any(|word| token.is(word));
    }
    Ok(Plan::Other {
        format,
        streamable: !whole && ["SELECT", "WITH", "FROM"].iter().any(|keyword| first.is(keyword)),
        session: ["SET", "USE"].iter().any(|keyword| first.is(keyword)),
    })
}

/// A format whose chunks form one document when they are joined and repeated headers are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Bare,
    /// The number of header lines. A line end between the given quotes does not count.
    Lines(usize, Option<u8>),
    /// A header of a column count and, this number of times, a text for each column.
    Binary(usize),
}

impl Framing {
    /// The framing of a format; `None` for a format that must come in one piece (JSON, Parquet,
    /// ...).
    pub fn of(format: &str) -> Option<Self> {
        let format = format.to_ascii_lowercase();
        let (base, texts) = match format.strip_suffix("withnamesandtypes") {
            Some(base) => (base, 2),
            None => format.strip_suffix("withnames").map_or((format.as_str(), 0), |base| (base, 1)),
        };
        match base {
            "native" | "jsoneachrow" | "jsonlines" | "ndjson" | "jsonstringseachrow" | "tskv" if texts > 0 => None,
            "native" | "jsoneachrow" | "jsonlines" | "ndjson" | "jsonstringseachrow" | "tskv" => Some(Self::Bare),
            "rowbinary" if texts > 0 => Some(Self::Binary(texts)),
            "csv" if texts > 0 => Some(Self::Lines(texts, Some(b'"'))),
            "rowbinary" | "csv" => Some(Self::Bare),
            "tabseparated"
            | "tsv"
            | "tabseparatedraw"
            | "tsvraw"
            | "jsoncompacteachrow"
            | "jsoncompactstringseachrow" => Some(if texts > 0 { Self::Lines(texts, None) } else { Self::Bare }),
            _ => None,
        }
    }

    /// Length of the header of a chunk, bytes; `None` if the chunk does not hold all of it.
    pub fn header_length(self, chunk: &[u8]) -> Option<usize> {
        match self {
            Self::Bare => Some(0),
            Self::Lines(lines, quote) => text_header_length(chunk, lines, quote),
            Self::Binary(texts) => binary_header_length(chunk, texts),
        }
    }
}

/// Length of the first `lines` lines, bytes. Line ends within quotes do not count.
fn text_header_length(chunk: &[u8], lines: usize, quote: Option<u8>) -> Option<usize> {
    let (mut at, mut seen, mut quoted) = (0, 0, false);
    while seen < lines {
        let byte = *chunk.get(at)?;
        quoted ^= Some(byte) == quote;
        seen += usize::from(byte == b'\n' && !quoted);
        at += 1;
    }
    Some(at)
}

/// Length of a column count followed by `texts` texts for each column, bytes.
fn binary_header_length(chunk: &[u8], texts: usize) -> Option<usize> {
    fn varint(chunk: &[u8], at: &mut usize) -> Option<usize> {
        let (mut value, mut shift) = (0_usize, 0_u32);
        loop {
            let byte = *chunk.get(*at)?;
            *at += 1;
            value |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
    }
    let mut at = 0;
    let columns = varint(chunk, &mut at)?;
    for _ in 0..columns.checked_mul(texts)? {
        let length = varint(chunk, &mut at)?;
        at = at.checked_add(length)?;
    }
    (at <= chunk.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(text: &str) -> (String, String, String) {
        match plan(text.as_bytes(), None) {
            Ok(Plan::Insert { head, format, data }) => (text[head].to_owned(), format, text[data..].to_owned()),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn finds_the_data_of_an_insert() {
        let expect = |text: &str, head: &str, format: &str, data: &str| {
            assert_eq!(insert(text), (head.to_owned(), format.to_owned(), data.to_owned()), "{text}");
        };
        expect("INSERT INTO t FORMAT CSV\n1,2\n", "INSERT INTO t ", "CSV", "1,2\n");
        expect("insert into t(a, b) values (1, ';')", "insert into t(a, b) ", "Values", " (1, ';')");
        expect("INSERT INTO values FORMAT TSV  \r\n\n", "INSERT INTO values ", "TSV", "\n");
        expect("INSERT INTO db.format VALUES(1)", "INSERT INTO db.format ", "Values", "(1)");
        expect(
            "INSERT INTO `a``VALUES` SETTINGS a='FORMAT x' FORMAT N {}",
            "INSERT INTO `a``VALUES` SETTINGS a='FORMAT x' ",
            "N",
            "{}",
        );
        expect(
            "/* FORMAT */ INSERT INTO FUNCTION null('a Int8') -- VALUES\n FORMAT X\n\u{0}",
            "/* FORMAT */ INSERT INTO FUNCTION null('a Int8') -- VALUES\n ",
            "X",
            "\u{0}",
        );
    }

    #[test]
    fn takes_the_format_of_the_request() {
        let text = b"INSERT INTO t (a)\n\x01\x02VALUES";
        let plan = plan(text, Some((17, "RowBinary")));
        assert_eq!(plan, Ok(Plan::Insert { head: 0..17, format: "RowBinary".to_owned(), data: 18 }));
    }

    #[test]
    fn reads_other_statements() {
        let expect = |text: &str, format: Option<&str>, streamable: bool| match plan(text.as_bytes(), None) {
            Ok(Plan::Other { format: read, streamable: streams, .. }) => {
                assert_eq!((read.as_deref(), streams), (format, streamable), "{text}");
            }
            other => panic!("{text}: {other:?}"),
        };
        expect("SELECT 1", None, true);
        expect("(SELECT 1) UNION ALL (SELECT 2 FORMAT X) format JSON;", Some("JSON"), true);
        expect("SELECT format FROM t", None, true);
        expect("SELECT 1 AS format SETTINGS max_threads = 1", None, true);
        expect("SELECT 1 FORMAT CSV SETTINGS max_threads = 1", Some("CSV"), true);
        expect("SELECT a, count() FROM t GROUP BY a WITH TOTALS", None, false);
        expect("SHOW TABLES", None, false);
        expect("INSERT INTO t SELECT 1", None, false);
        expect("SELECT $a$;FORMAT x$a$, 'it''s; \\'', \"q;\" # ;\n", None, true);
        assert!(plan(b"SELECT 1; SELECT 2", None).is_err());
        assert!(plan(b" -- nothing", None).is_err());
        assert!(plan(b"SELECT 1 INTO OUTFILE 'x'", None).is_err());
        assert!(plan(b"INSERT INTO t FROM INFILE 'x' FORMAT CSV", None).is_err());
    }

    #[test]
    fn statements_are_killed_by_the_names_of_their_clients() {
        let name = |query_id: &str, owner| Name { query_id: query_id.to_owned(), owner };
        let names =
            BTreeMap::from([("doseline-1".into(), name("it's", true)), ("doseline-2".into(), name("x", false))]);
        let owner =
            |text: &str| kill(text.as_bytes(), || names.clone(), true).map(|text| String::from_utf8(text).unwrap());
        assert_eq!(
            owner("KILL QUERY WHERE user = 'u' AND query_id = 'query_id' SYNC").unwrap(),
            "KILL QUERY WHERE user = 'u' AND transform(Settings['log_comment'], ['-', 'doseline-1', 'doseline-2'], \
             ['-', 'it\\'s', 'x'], query_id) = 'query_id' SYNC"
        );
        assert_eq!(owner("SELECT query_id FROM system.processes"), None);
        let reader =
            |text: &str| kill(text.as_bytes(), || names.clone(), false).map(|text| String::from_utf8(text).unwrap());
        let killed = reader("kill query where query_id='x' async;").unwrap();
        assert_eq!(
            killed,
            "KILL QUERY WHERE transform(Settings['log_comment'], ['-', 'doseline-2'], ['-', 'x'], '') = 'x' ASYNC"
        );
        for text in [
            "KILL QUERY WHERE query_id = ''",
            "KILL QUERY WHERE query_id = '-'",
            "KILL QUERY WHERE query_id = 'x\\' OR 1 -- '",
            "KILL QUERY WHERE query_id = 'x' SYNC; SELECT 1",
            "KILL QUERY WHERE 1",
            "KILL QUERY WHERE query_id = 'x' OR 1",
            "KILL QUERY WHERE query_id = query_id",
            "KILL QUERY WHERE query_id = 'x' || 'y'",
            "KILL MUTATION WHERE query_id = 'x'",
        ] {
            assert_eq!(reader(text), None, "{text}");
        }
    }

    #[test]
    fn measures_headers() {
        let expect = |format: &str, chunk: &[u8], length: Option<usize>| {
            assert_eq!(Framing::of(format).and_then(|framing| framing.header_length(chunk)), length, "{format}");
        };
        expect("RowBinaryWithNamesAndTypes", b"\x01\x01a\x05UInt8\x07", Some(9));
        expect("RowBinaryWithNamesAndTypes", b"\x01\x01a\x05UIn", None);
        expect("CSVWithNames", b"\"a\n\"\"b\",\"c\"\n1,2\n", Some(12));
        expect("TSVWithNamesAndTypes", b"a\nInt8\n1\n", Some(7));
        expect("Native", b"x", Some(0));
        expect("JSON", b"{}", None);
        expect("Null", b"", None);
    }
}

//! Driver: COPY FROM STDIN and TO STDOUT, text, csv and binary.
//!
//! Data comes in pieces that may end anywhere. Rows are taken off as they become whole and inserted in batches, so that memory stays
//! bounded whatever the size: the transaction lays its writes down as they pile up.

use super::Session;
use super::statement::Prepared;
use crate::bind::{Binder, target_for};
use crate::error::{SqlError, codes};
use crate::exec::{Exec, Facts, Pipeline};
use crate::outcome::{Outcome, Row};
use crate::parse::{
    CopyDirection, CopyFormat, CopyOptions, CopySource, CopyStatement, Parsed, Positions,
};
use crate::plan::{Expr, Target};
use crate::types::{Datum, SqlState, Type, binary, text};
use bytes::{Buf, Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// Rows inserted together.
const ROWS_PER_BATCH: usize = 500;
/// Bytes of one row.
const ROW_BYTES_MAX: usize = 64 << 20;
/// Bytes of one chunk that goes out.
const CHUNK_BYTES: usize = 64 << 10;
/// How binary data begins.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// A COPY FROM STDIN under way.
pub(super) struct CopyIn {
    target: Target,
    /// Table columns in the data's order.
    columns: Vec<usize>,
    /// What the other columns get.
    defaults: Vec<Expr>,
    options: CopyOptions,
    facts: Arc<Facts>,
    buffer: BytesMut,
    rows: Vec<Row>,
    count: u64,
    line: u64,
    header_seen: bool,
    ended: bool,
    deferred_count: usize,
}

impl Session {
    /// COPY.
    pub(super) async fn run_copy(
        &mut self,
        copy: &CopyStatement,
        parsed: &Parsed,
    ) -> Result<Outcome, SqlError> {
        match copy.direction {
            CopyDirection::In => self.copy_in(copy).await,
            CopyDirection::Out => self.copy_out(copy, parsed).await,
        }
    }

    async fn copy_in(&mut self, copy: &CopyStatement) -> Result<Outcome, SqlError> {
        let CopySource::Table { name, columns } = &copy.source else {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "COPY query FROM STDIN is not possible",
            ));
        };
        let facts = self.facts_now();
        let positions = Positions::new("");
        let binder = Binder::new(&facts, &positions, &[]);
        let table = match binder.writable_table(name) {
            Err(error) if error.code == SqlState::UNDEFINED_TABLE => {
                self.engine.refresh_catalog().await?;
                let facts = self.facts_now();
                Binder::new(&facts, &positions, &[]).writable_table(name)?
            }
            other => other?,
        };
        let facts = self.facts_now();
        let mut binder = Binder::new(&facts, &positions, &[]);
        let mut places = Vec::new();
        for column in columns {
            places.push(
                table.find(column).filter(|place| !table.columns[*place].hidden).ok_or_else(
                    || {
                        SqlError::new(
                            codes::UNDEFINED_COLUMN,
                            format!(
                                "column \"{column}\" of relation \"{}\" does not exist",
                                table.name
                            ),
                        )
                    },
                )?,
            );
        }
        if columns.is_empty() {
            places = table.visible().map(|(place, _)| place).collect();
        }
        let mut defaults = Vec::new();
        for place in 0..table.columns.len() {
            defaults.push(if places.contains(&place) {
                Expr::Const(Datum::Null)
            } else {
                binder.default_of(&table, place)?
            });
        }
        let target = target_for(&mut binder, &table)?;
        let deferred_count = binder.deferred_count();
        self.begin_in_transaction(Duration::MAX).await?;
        if self.begin_if_none().txn.is_read_only() {
            return Err(SqlError::read_only("COPY FROM"));
        }
        self.tear_tape();
        let count = places.len();
        let format = i8::from(copy.options.format == CopyFormat::Binary);
        self.copy = Some(CopyIn {
            target,
            columns: places,
            defaults,
            options: copy.options.clone(),
            facts,
            buffer: BytesMut::new(),
            rows: Vec::new(),
            count: 0,
            line: 0,
            header_seen: !copy.options.header,
            ended: false,
            deferred_count,
        });
        Ok(Outcome::CopyIn { columns: count, format })
    }

    pub(super) async fn copy_bytes(&mut self, data: Bytes) -> Result<(), SqlError> {
        let Some(copy) = &mut self.copy else { return Err(not_copying()) };
        copy.buffer.extend_from_slice(&data);
        loop {
            let copy = self.copy.as_mut().ok_or_else(not_copying)?;
            let more = copy.take_rows(false)?;
            if copy.rows.len() >= ROWS_PER_BATCH {
                self.copy_flush().await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    pub(super) async fn copy_end(&mut self) -> Result<Outcome, SqlError> {
        loop {
            let copy = self.copy.as_mut().ok_or_else(not_copying)?;
            let more = copy.take_rows(true)?;
            self.copy_flush().await?;
            if !more {
                break;
            }
        }
        let copy = self.copy.take().ok_or_else(not_copying)?;
        self.begin_if_none().statement_count += 1;
        Ok(Outcome::Complete { tag: format!("COPY {}", copy.count) })
    }

    /// Inserts the rows that have gathered.
    async fn copy_flush(&mut self) -> Result<(), SqlError> {
        let Some(mut copy) = self.copy.take() else { return Err(not_copying()) };
        let rows = std::mem::take(&mut copy.rows);
        let memory = self.statement_memory_max();
        let active = self.active.as_mut().ok_or_else(not_copying)?;
        let mut exec = Exec::new(
            &mut active.txn,
            &copy.facts,
            &[],
            &self.cancel,
            &self.engine.sequences,
            copy.deferred_count,
            memory,
        );
        exec.check_canceled()?;
        let work = async {
            let mut whole = Vec::with_capacity(rows.len());
            for values in rows {
                let mut row = Vec::with_capacity(copy.defaults.len());
                for default in &copy.defaults {
                    row.push(exec.value(default, &[]).await?);
                }
                for (place, value) in copy.columns.iter().zip(values) {
                    row[*place] = value;
                }
                whole.push(row);
            }
            let count = whole.len() as u64;
            exec.insert_rows(&copy.target, whole).await?;
            exec.txn.spill_if_large().await?;
            Ok(count)
        };
        copy.count += self.cancel.unless_canceled(work).await?;
        self.copy = Some(copy);
        Ok(())
    }

    async fn copy_out(
        &mut self,
        copy: &CopyStatement,
        parsed: &Parsed,
    ) -> Result<Outcome, SqlError> {
        let statement = match &copy.source {
            CopySource::Query(query) => sqlparser::ast::Statement::Query(query.clone()),
            CopySource::Table { name, columns } => {
                let quoted: Vec<String> = columns
                    .iter()
                    .map(|column| format!("\"{}\"", column.replace('"', "\"\"")))
                    .collect();
                let list = if quoted.is_empty() { "*".to_string() } else { quoted.join(", ") };
                let parsed = crate::parse::parse(&format!("SELECT {list} FROM {name}"))?;
                match parsed.first().map(|parsed| parsed.statement.as_ref()) {
                    Some(crate::parse::Statement::Sql(statement)) => statement.as_ref().clone(),
                    _ => return Err(SqlError::internal("COPY's query cannot be read")),
                }
            }
        };
        let inner = Parsed {
            statement: Arc::new(crate::parse::Statement::Sql(Box::new(statement))),
            ..parsed.clone()
        };
        let prepared = Prepared::new(Some(inner), &[])?;
        let planned = self.planned(&prepared).await?;
        let columns = planned.columns.clone().unwrap_or_else(|| Arc::from([]));
        let types: Vec<Type> = columns.iter().map(|column| column.ty).collect();
        self.begin_in_transaction(Duration::MAX).await?;
        self.tear_tape();
        let facts = self.facts_now();
        let memory = self.statement_memory_max();
        let active = self.active.as_mut().expect("begun above");
        let mut exec = Exec::new(
            &mut active.txn,
            &facts,
            &[],
            &self.cancel,
            &self.engine.sequences,
            planned.deferred_count,
            memory,
        );
        exec.enter(&planned)?;
        let mut out = Chunks {
            options: &copy.options,
            types: &types,
            facts: &facts,
            chunks: Vec::new(),
            current: Vec::new(),
        };
        if copy.options.format == CopyFormat::Binary {
            out.current.extend_from_slice(SIGNATURE);
            out.current.extend_from_slice(&[0; 8]);
        } else if copy.options.header {
            let names: Vec<Datum> =
                columns.iter().map(|column| Datum::text(&column.name)).collect();
            let types = vec![Type::Text; names.len()];
            Chunks { types: &types, current: Vec::new(), chunks: Vec::new(), ..out }
                .line_into(&names, &mut out.current);
        }
        let mut count = 0u64;
        let mut pipeline = Pipeline::open(&planned.plan, None);
        while let Some(rows) = self.cancel.unless_canceled(pipeline.next(&mut exec)).await? {
            count += rows.len() as u64;
            for row in rows {
                out.row(&row);
            }
        }
        if copy.options.format == CopyFormat::Binary {
            out.current.extend_from_slice(&(-1i16).to_be_bytes());
        }
        out.cut();
        let chunks = out.chunks;
        active.statement_count += 1;
        let format = i8::from(copy.options.format == CopyFormat::Binary);
        Ok(Outcome::CopyOut {
            columns: columns.len(),
            format,
            chunks,
            tag: format!("COPY {count}"),
        })
    }
}

fn not_copying() -> SqlError {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, "no COPY is in progress")
}

fn bad(message: impl Into<String>) -> SqlError {
    SqlError::new(codes::BAD_COPY_FILE_FORMAT, message)
}

impl CopyIn {
    /// Takes rows off the buffer, up to a batch; whether there may be more.
    fn take_rows(&mut self, last: bool) -> Result<bool, SqlError> {
        while self.rows.len() < ROWS_PER_BATCH {
            if self.ended {
                self.buffer.clear();
                return Ok(false);
            }
            let took = match self.options.format {
                CopyFormat::Text => self.take_line(last)?,
                CopyFormat::Csv => self.take_csv(last)?,
                CopyFormat::Binary => self.take_binary(last)?,
            };
            if !took {
                if self.buffer.len() > ROW_BYTES_MAX {
                    return Err(SqlError::new(
                        SqlState::PROGRAM_LIMIT_EXCEEDED,
                        format!("a row of COPY data is over {ROW_BYTES_MAX} bytes"),
                    ));
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn take_line(&mut self, last: bool) -> Result<bool, SqlError> {
        let line = match self.buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                line
            }
            None if last && !self.buffer.is_empty() => self.buffer.split(),
            None => return Ok(false),
        };
        self.line += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(&line).to_vec();
        if !std::mem::replace(&mut self.header_seen, true) {
            return Ok(true);
        }
        if line == b"\\." {
            self.ended = true;
            return Ok(true);
        }
        let mut fields = Vec::new();
        for raw in split_text(&line, self.options.delimiter) {
            fields.push(if raw == self.options.null.as_bytes() {
                None
            } else {
                Some(unescape(raw))
            });
        }
        self.push(fields)?;
        Ok(true)
    }

    fn take_csv(&mut self, last: bool) -> Result<bool, SqlError> {
        let Some((fields, used)) = csv_record(&self.buffer, &self.options, last)? else {
            return Ok(false);
        };
        self.buffer.advance(used);
        self.line += 1;
        if !std::mem::replace(&mut self.header_seen, true) {
            return Ok(true);
        }
        if fields.len() == 1 && fields[0].0 == b"\\." && !fields[0].1 {
            self.ended = true;
            return Ok(true);
        }
        let null = self.options.null.as_bytes();
        let fields = fields
            .into_iter()
            .map(|(bytes, quoted)| if !quoted && bytes == null { None } else { Some(bytes) });
        self.push(fields.collect())?;
        Ok(true)
    }

    fn take_binary(&mut self, last: bool) -> Result<bool, SqlError> {
        if self.line == 0 {
            if self.buffer.len() < SIGNATURE.len() + 8 {
                return if last {
                    Err(bad("COPY file signature not recognized"))
                } else {
                    Ok(false)
                };
            }
            if !self.buffer.starts_with(SIGNATURE) {
                return Err(bad("COPY file signature not recognized"));
            }
            let at = SIGNATURE.len() + 4;
            let extra = u32::from_be_bytes(self.buffer[at..at + 4].try_into().expect("four bytes"))
                as usize;
            if self.buffer.len() < at + 4 + extra {
                return Ok(false);
            }
            self.buffer.advance(at + 4 + extra);
            self.line = 1;
        }
        let mut input = &self.buffer[..];
        if input.len() < 2 {
            return if last { Err(bad("unexpected EOF in COPY data")) } else { Ok(false) };
        }
        let count = input.get_i16();
        if count == -1 {
            self.ended = true;
            return Ok(true);
        }
        if usize::try_from(count).ok() != Some(self.columns.len()) {
            return Err(bad(format!(
                "row field count is {count}, expected {}",
                self.columns.len()
            )));
        }
        let mut values = Vec::new();
        for place in &self.columns {
            if input.len() < 4 {
                return if last { Err(bad("unexpected EOF in COPY data")) } else { Ok(false) };
            }
            let length = input.get_i32();
            let Ok(length) = usize::try_from(length) else {
                values.push(Datum::Null);
                continue;
            };
            if input.len() < length {
                return if last { Err(bad("unexpected EOF in COPY data")) } else { Ok(false) };
            }
            let column = &self.target.table.columns[*place];
            values.push(binary::read(
                &input[..length],
                column.ty.base(),
                column.typmod,
                &*self.facts,
            )?);
            input.advance(length);
        }
        let used = self.buffer.len() - input.len();
        self.buffer.advance(used);
        self.line += 1;
        self.rows.push(values);
        Ok(true)
    }

    fn push(&mut self, fields: Vec<Option<Vec<u8>>>) -> Result<(), SqlError> {
        let table = &self.target.table;
        if fields.len() < self.columns.len() {
            let missing = &table.columns[self.columns[fields.len()]].name;
            return Err(bad(format!("missing data for column \"{missing}\""))
                .with_detail(format!("COPY {}, line {}", table.name, self.line)));
        }
        if fields.len() > self.columns.len() {
            return Err(bad("extra data after last expected column")
                .with_detail(format!("COPY {}, line {}", table.name, self.line)));
        }
        let mut values = Vec::with_capacity(fields.len());
        for (place, field) in self.columns.iter().zip(fields) {
            let column = &table.columns[*place];
            values.push(match field {
                None => Datum::Null,
                Some(bytes) => {
                    let string = String::from_utf8(bytes).map_err(|_| {
                        SqlError::new(
                            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                            "invalid byte sequence for encoding \"UTF8\"",
                        )
                    })?;
                    text::parse(&string, column.ty.base(), column.typmod, &*self.facts).map_err(
                        |error| {
                            let error = SqlError::from(error);
                            let place = format!(
                                "COPY {}, line {}, column {}",
                                table.name, self.line, column.name
                            );
                            SqlError {
                                detail: error.detail.or(Some(place)),
                                ..SqlError::new(error.code, error.message)
                            }
                        },
                    )?
                }
            });
        }
        self.rows.push(values);
        Ok(())
    }
}

/// Fields of a line; an escaped delimiter does not separate.
fn split_text(line: &[u8], delimiter: u8) -> Vec<&[u8]> {
    let mut fields = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < line.len() {
        if line[at] == b'\\' {
            at += 2;
            continue;
        }
        if line[at] == delimiter {
            fields.push(&line[start..at]);
            start = at + 1;
        }
        at += 1;
    }
    fields.push(&line[start..]);
    fields
}

/// A field of the text form without its backslashes.
fn unescape(raw: &[u8]) -> Vec<u8> {
    if !raw.contains(&b'\\') {
        return raw.to_vec();
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some(next) = bytes.next() else {
            out.push(b'\\');
            break;
        };
        match next {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'0'..=b'7' => {
                let mut value = u32::from(next - b'0');
                for _ in 0..2 {
                    let Some(digit) = bytes.next_if(|byte| (b'0'..=b'7').contains(byte)) else {
                        break;
                    };
                    value = value * 8 + u32::from(digit - b'0');
                }
                out.push((value & 0xff) as u8);
            }
            b'x' if bytes.peek().is_some_and(u8::is_ascii_hexdigit) => {
                let mut value = 0;
                for _ in 0..2 {
                    let Some(digit) = bytes.next_if(u8::is_ascii_hexdigit) else { break };
                    value = value * 16 + (digit as char).to_digit(16).expect("a hex digit");
                }
                out.push(value as u8);
            }
            other => out.push(other),
        }
    }
    out
}

type CsvFields = Vec<(Vec<u8>, bool)>;

/// The first record with the bytes it takes; `None`: it is not whole. Fields with whether they were quoted.
fn csv_record(
    data: &[u8],
    options: &CopyOptions,
    last: bool,
) -> Result<Option<(CsvFields, usize)>, SqlError> {
    if data.is_empty() {
        return Ok(None);
    }
    let mut fields = Vec::new();
    let (mut field, mut quoted, mut inside) = (Vec::new(), false, false);
    let mut at = 0;
    while at < data.len() {
        let byte = data[at];
        let next = data.get(at + 1).copied();
        if inside {
            if byte == options.escape
                && let Some(escaped) = next
                && (escaped == options.quote || escaped == options.escape)
            {
                field.push(escaped);
                at += 2;
                continue;
            }
            if byte == options.quote {
                // At the end of what has come: the next byte decides whether it is doubled.
                if next.is_none() && !last {
                    return Ok(None);
                }
                inside = false;
            } else {
                field.push(byte);
            }
        } else if byte == options.quote {
            inside = true;
            quoted = true;
        } else if byte == options.delimiter {
            fields.push((std::mem::take(&mut field), std::mem::take(&mut quoted)));
        } else if byte == b'\n' {
            if field.last() == Some(&b'\r') && !quoted {
                field.pop();
            }
            fields.push((field, quoted));
            return Ok(Some((fields, at + 1)));
        } else if byte == b'\r' && quoted {
            // The line's end after a quoted field.
        } else {
            field.push(byte);
        }
        at += 1;
    }
    if !last {
        return Ok(None);
    }
    if inside {
        return Err(bad("unterminated CSV quoted field"));
    }
    fields.push((field, quoted));
    Ok(Some((fields, data.len())))
}

/// Data on its way out.
struct Chunks<'c> {
    options: &'c CopyOptions,
    types: &'c [Type],
    facts: &'c Facts,
    chunks: Vec<Bytes>,
    current: Vec<u8>,
}

impl Chunks<'_> {
    fn row(&mut self, row: &Row) {
        let mut current = std::mem::take(&mut self.current);
        self.line_into(row, &mut current);
        self.current = current;
        if self.current.len() >= CHUNK_BYTES {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if !self.current.is_empty() {
            self.chunks.push(Bytes::from(std::mem::take(&mut self.current)));
        }
    }

    fn line_into(&self, row: &[Datum], out: &mut Vec<u8>) {
        if self.options.format == CopyFormat::Binary {
            out.extend_from_slice(&i16::try_from(row.len()).unwrap_or(i16::MAX).to_be_bytes());
            for (value, ty) in row.iter().zip(self.types) {
                binary::write_field(out, value, *ty, self.facts);
            }
            return;
        }
        for (at, (value, ty)) in row.iter().zip(self.types).enumerate() {
            if at > 0 {
                out.push(self.options.delimiter);
            }
            if value.is_null() {
                out.extend_from_slice(self.options.null.as_bytes());
                continue;
            }
            let string = text::to_string(value, *ty, self.facts);
            match self.options.format {
                CopyFormat::Csv => self.csv_field(&string, out),
                CopyFormat::Text | CopyFormat::Binary => self.text_field(&string, out),
            }
        }
        out.push(b'\n');
    }

    fn text_field(&self, string: &str, out: &mut Vec<u8>) {
        for byte in string.bytes() {
            match byte {
                b'\\' => out.extend_from_slice(b"\\\\"),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                8 => out.extend_from_slice(b"\\b"),
                11 => out.extend_from_slice(b"\\v"),
                12 => out.extend_from_slice(b"\\f"),
                byte if byte == self.options.delimiter => out.extend_from_slice(&[b'\\', byte]),
                byte => out.push(byte),
            }
        }
    }

    fn csv_field(&self, string: &str, out: &mut Vec<u8>) {
        let options = self.options;
        let special = |byte: u8| {
            byte == options.delimiter || byte == options.quote || byte == b'\n' || byte == b'\r'
        };
        if string != options.null && !string.bytes().any(special) && string != "\\." {
            out.extend_from_slice(string.as_bytes());
            return;
        }
        out.push(options.quote);
        for byte in string.bytes() {
            if byte == options.quote || byte == options.escape {
                out.push(options.escape);
            }
            out.push(byte);
        }
        out.push(options.quote);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn csv() -> CopyOptions {
        CopyOptions {
            format: CopyFormat::Csv,
            delimiter: b',',
            null: String::new(),
            header: false,
            quote: b'"',
            escape: b'"',
        }
    }

    #[test]
    fn csv_records_wait_until_they_are_whole() {
        let options = csv();
        assert!(csv_record(b"a,\"b", &options, false).expect("ok").is_none());
        assert!(csv_record(b"a,\"b\"", &options, false).expect("ok").is_none());
        let (fields, used) = csv_record(b"a,\"b\"\"c\nd\",,\"\"\r\nrest", &options, false)
            .expect("ok")
            .expect("whole");
        assert_eq!(used, 16);
        let plain: Vec<(&[u8], bool)> =
            fields.iter().map(|(bytes, quoted)| (bytes.as_slice(), *quoted)).collect();
        assert_eq!(
            plain,
            [(&b"a"[..], false), (&b"b\"c\nd"[..], true), (&b""[..], false), (&b""[..], true)]
        );
        assert!(csv_record(b"\"a", &options, true).is_err());
    }

    #[test]
    fn text_fields_lose_their_backslashes() {
        assert_eq!(split_text(b"a\\\tb\tc", b'\t'), [&b"a\\\tb"[..], &b"c"[..]]);
        assert_eq!(unescape(b"a\\tb\\\\c\\101\\x41"), b"a\tb\\cAA");
    }
}

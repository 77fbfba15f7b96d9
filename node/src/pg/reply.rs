//! Value: what goes back to a client, as frames in a buffer.

use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery,
    TransactionStatus,
};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};
use sql::{Column, Notice, SqlError};

/// Frames that wait to be flushed.
#[derive(Default)]
pub struct Replies {
    /// The bytes.
    pub buffer: BytesMut,
}

impl Replies {
    /// Appends a message of the codec. The messages made here are within the codec's limits; one that is not is dropped
    /// with the connection (the client would see a malformed stream otherwise).
    fn put(&mut self, message: &impl Message) -> Result<(), pgwire::error::PgWireError> {
        message.encode(&mut self.buffer)
    }

    fn put_small(&mut self, message: &impl Message) {
        self.put(message)
            .expect("a message without client-chosen content is within the codec's limits");
    }

    /// AuthenticationOk.
    pub fn authenticated(&mut self) {
        self.put_small(&Authentication::Ok);
    }

    /// ParameterStatus.
    pub fn parameter(&mut self, name: &str, value: &str) {
        // A value over the codec's limit (a client's own setting, echoed) is not worth a connection.
        let _ = self.put(&ParameterStatus::new(name.to_string(), value.to_string()));
    }

    /// NegotiateProtocolVersion: 3.0 is what we speak.
    pub fn negotiate_down(&mut self) {
        self.put_small(&NegotiateProtocolVersion::new(0, Vec::new()));
    }

    /// BackendKeyData.
    pub fn key_data(&mut self, process: i32, secret: i32) {
        self.put_small(&BackendKeyData::new(process, SecretKey::I32(secret)));
    }

    /// ReadyForQuery.
    pub fn ready(&mut self, status: sql::TransactionStatus) {
        let status = match status {
            sql::TransactionStatus::Idle => TransactionStatus::Idle,
            sql::TransactionStatus::InTransaction => TransactionStatus::Transaction,
            sql::TransactionStatus::Failed => TransactionStatus::Error,
        };
        self.put_small(&ReadyForQuery::new(status));
    }

    /// ErrorResponse with all fields that are set.
    pub fn error(&mut self, error: &SqlError) {
        self.error_with_severity("ERROR", error);
    }

    /// ErrorResponse that ends the connection.
    pub fn fatal(&mut self, error: &SqlError) {
        self.error_with_severity("FATAL", error);
    }

    fn error_with_severity(&mut self, severity: &str, error: &SqlError) {
        let mut fields = vec![(b'S', severity.to_string()), (b'V', severity.to_string())];
        fields.push((b'C', error.code.to_string()));
        fields.push((b'M', shortened(&error.message)));
        let optional = [
            (b'D', &error.detail),
            (b'H', &error.hint),
            (b's', &error.schema),
            (b't', &error.table),
            (b'c', &error.column),
            (b'n', &error.constraint),
        ];
        for (tag, text) in optional {
            if let Some(text) = text {
                fields.push((tag, shortened(text)));
            }
        }
        if let Some(position) = error.position {
            fields.push((b'P', position.to_string()));
        }
        self.put_small(&ErrorResponse::new(fields));
    }

    /// NoticeResponse.
    pub fn notice(&mut self, notice: &Notice) {
        let mut fields =
            vec![(b'S', notice.severity.to_string()), (b'V', notice.severity.to_string())];
        fields.push((b'C', notice.code.to_string()));
        fields.push((b'M', shortened(&notice.message)));
        if let Some(hint) = &notice.hint {
            fields.push((b'H', shortened(hint)));
        }
        self.put_small(&NoticeResponse::new(fields));
    }

    /// ParseComplete.
    pub fn parsed(&mut self) {
        self.put_small(&ParseComplete::new());
    }

    /// BindComplete.
    pub fn bound(&mut self) {
        self.put_small(&BindComplete::new());
    }

    /// CloseComplete.
    pub fn closed(&mut self) {
        self.put_small(&CloseComplete::new());
    }

    /// PortalSuspended.
    pub fn suspended(&mut self) {
        self.put_small(&PortalSuspended::new());
    }

    /// NoData.
    pub fn no_data(&mut self) {
        self.put_small(&NoData::new());
    }

    /// EmptyQueryResponse.
    pub fn empty_query(&mut self) {
        self.put_small(&EmptyQueryResponse::new());
    }

    /// CommandComplete.
    pub fn complete(&mut self, tag: &str) {
        self.put_small(&CommandComplete::new(tag.to_string()));
    }

    /// ParameterDescription.
    pub fn parameters(&mut self, types: &[u32]) -> Result<(), pgwire::error::PgWireError> {
        self.put(&ParameterDescription::new(types.to_vec()))
    }

    /// RowDescription; `formats` as bound (empty: text; one: for all; otherwise one each).
    pub fn columns(
        &mut self,
        columns: &[Column],
        formats: &[i16],
    ) -> Result<(), pgwire::error::PgWireError> {
        let fields = columns.iter().enumerate().map(|(place, column)| {
            FieldDescription::new(
                column.name.to_string(),
                i32::try_from(column.table_oid).unwrap_or(0),
                column.attnum,
                column.type_oid,
                column.type_size,
                column.typmod,
                format_at(formats, place),
            )
        });
        self.put(&RowDescription::new(fields.collect()))
    }

    /// One DataRow. Written by hand: this is the hot one.
    pub fn row(
        &mut self,
        row: &[sql::types::Datum],
        columns: &[Column],
        formats: &[i16],
        session: &sql::Session,
    ) {
        let start = self.buffer.len();
        self.buffer.put_u8(b'D');
        self.buffer.put_i32(0);
        self.buffer.put_i16(i16::try_from(row.len()).expect("a row has at most 1664 columns"));
        for (place, datum) in row.iter().enumerate() {
            let at = self.buffer.len();
            self.buffer.put_i32(-1);
            if session.encode_datum(
                datum,
                &columns[place],
                format_at(formats, place),
                &mut self.buffer,
            ) {
                let length =
                    i32::try_from(self.buffer.len() - at - 4).expect("a value is below 1 GiB");
                self.buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        let length = i32::try_from(self.buffer.len() - start - 1).expect("a row is below 1 GiB");
        self.buffer[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    }

    /// CopyInResponse, text or binary for all columns.
    pub fn copy_in(&mut self, format: i8, columns: usize) {
        self.put_small(&CopyInResponse::new(
            format,
            count(columns),
            vec![i16::from(format); columns],
        ));
    }

    /// CopyOutResponse.
    pub fn copy_out(&mut self, format: i8, columns: usize) {
        self.put_small(&CopyOutResponse::new(
            format,
            count(columns),
            vec![i16::from(format); columns],
        ));
    }

    /// CopyData.
    pub fn copy_data(&mut self, data: bytes::Bytes) -> Result<(), pgwire::error::PgWireError> {
        self.put(&CopyData::new(data))
    }

    /// CopyDone.
    pub fn copy_done(&mut self) {
        self.put_small(&CopyDone::new());
    }
}

fn count(columns: usize) -> i16 {
    i16::try_from(columns).expect("a table has at most 1600 columns")
}

/// The format of a result column as PostgreSQL reads the list in Bind.
pub fn format_at(formats: &[i16], place: usize) -> i16 {
    match formats {
        [] => 0,
        [all] => *all,
        each => each.get(place).copied().unwrap_or(0),
    }
}

/// The codec refuses error texts over 30,000 bytes; nobody reads that much.
fn shortened(text: &str) -> String {
    const MOST: usize = 4000;
    match text.char_indices().nth(MOST) {
        None => text.to_string(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

//! Value: type names of SQL.

use crate::error::SqlError;
use crate::types::{SqlState, Type};
use sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType, ExactNumberInfo, IntervalFields, TimezoneInfo,
};

/// A type name with its modifier. `SERIAL` and kin are not types: see [`serial`].
pub(crate) fn data_type(ast: &DataType) -> Result<(Type, i32), SqlError> {
    let plain = |ty: Type| Ok((ty, -1));
    match ast {
        DataType::Bool | DataType::Boolean => plain(Type::Bool),
        DataType::SmallInt(_) | DataType::Int2(_) => plain(Type::Int2),
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => plain(Type::Int4),
        DataType::BigInt(_) | DataType::Int8(_) => plain(Type::Int8),
        DataType::Real | DataType::Float4 => plain(Type::Float4),
        DataType::Float8 | DataType::DoublePrecision | DataType::Double(_) => plain(Type::Float8),
        DataType::Float(ExactNumberInfo::Precision(bits)) => match bits {
            1..=24 => plain(Type::Float4),
            25..=53 => plain(Type::Float8),
            _ => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "precision for type float must be less than 54 bits",
            )),
        },
        DataType::Float(_) => plain(Type::Float8),
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => {
            with_modifiers(Type::Numeric, &numeric_modifiers(info)?)
        }
        DataType::Text => plain(Type::Text),
        DataType::Varchar(length)
        | DataType::CharacterVarying(length)
        | DataType::CharVarying(length) => {
            with_modifiers(Type::Varchar, &length_modifiers(length.as_ref())?)
        }
        DataType::Char(length) | DataType::Character(length) => {
            let modifiers = length_modifiers(length.as_ref())?;
            with_modifiers(Type::BpChar, if modifiers.is_empty() { &[1] } else { &modifiers })
        }
        DataType::Bytea => plain(Type::Bytea),
        DataType::Uuid => plain(Type::Uuid),
        DataType::Date => plain(Type::Date),
        DataType::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            with_modifiers(Type::Time, &small_modifiers(precision.as_ref().copied())?)
        }
        DataType::Timestamp(precision, zone) => {
            let ty = match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => Type::Timestamp,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => Type::TimestampTz,
            };
            with_modifiers(ty, &small_modifiers(precision.as_ref().copied())?)
        }
        DataType::Interval { fields, precision } => {
            interval(fields.as_ref(), precision.as_ref().copied())
        }
        DataType::JSON => plain(Type::Json),
        DataType::JSONB => plain(Type::Jsonb),
        DataType::Regclass => plain(Type::RegClass),
        DataType::Array(
            ArrayElemTypeDef::SquareBracket(element, _) | ArrayElemTypeDef::Qualified(element, _),
        ) => {
            let (element, typmod) = data_type(element)?;
            // int[][] is int[]: PostgreSQL does not count dimensions either.
            if element.element().is_some() {
                return Ok((element, typmod));
            }
            match element.array() {
                Some(array) => Ok((array, typmod)),
                None => Err(undefined(&format!("{element}[]"))),
            }
        }
        DataType::Custom(name, modifiers) => custom(name, modifiers),
        other => Err(undefined(&other.to_string().to_lowercase())),
    }
}

fn custom(
    name: &sqlparser::ast::ObjectName,
    modifiers: &[String],
) -> Result<(Type, i32), SqlError> {
    let parts = super::name_parts(name)?;
    let (schema, last) = match parts.as_slice() {
        [name] => (None, name.as_str()),
        [schema, name] => (Some(schema.as_str()), name.as_str()),
        _ => return Err(undefined(&parts.join("."))),
    };
    if schema.is_some_and(|schema| schema != "pg_catalog") {
        return Err(undefined(&parts.join(".")));
    }
    // Quoted "char" is PostgreSQL's one-byte type; char without quotes never comes here.
    let ty = Type::from_internal_name(last)
        .or_else(|| Type::from_name(last))
        .ok_or_else(|| undefined(&parts.join(".")))?;
    let modifiers: Result<Vec<i32>, _> =
        modifiers.iter().map(|text| text.trim().parse::<i32>()).collect();
    match modifiers {
        Ok(modifiers) => with_modifiers(ty, &modifiers),
        Err(_) => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            "type modifiers must be simple constants or identifiers",
        )),
    }
}

/// `serial` and kin: the integer type, if the name is one of them.
pub(crate) fn serial(ast: &DataType) -> Option<Type> {
    let DataType::Custom(name, _) = ast else { return None };
    match super::name_parts(name).ok()?.as_slice() {
        [name] => match name.as_str() {
            "serial" | "serial4" => Some(Type::Int4),
            "bigserial" | "serial8" => Some(Type::Int8),
            "smallserial" | "serial2" => Some(Type::Int2),
            _ => None,
        },
        _ => None,
    }
}

fn undefined(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist"))
}

fn with_modifiers(ty: Type, modifiers: &[i32]) -> Result<(Type, i32), SqlError> {
    Ok((ty, ty.typmod(modifiers)?))
}

fn small(value: u64) -> Result<i32, SqlError> {
    i32::try_from(value)
        .map_err(|_| SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "type modifier out of range"))
}

fn small_modifiers(precision: Option<u64>) -> Result<Vec<i32>, SqlError> {
    precision.map(small).into_iter().collect()
}

fn numeric_modifiers(info: &ExactNumberInfo) -> Result<Vec<i32>, SqlError> {
    Ok(match info {
        ExactNumberInfo::None => Vec::new(),
        ExactNumberInfo::Precision(precision) => vec![small(*precision)?],
        ExactNumberInfo::PrecisionAndScale(precision, scale) => {
            let scale = i32::try_from(*scale).map_err(|_| {
                SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "type modifier out of range")
            })?;
            vec![small(*precision)?, scale]
        }
    })
}

fn length_modifiers(length: Option<&CharacterLength>) -> Result<Vec<i32>, SqlError> {
    match length {
        None | Some(CharacterLength::Max) => Ok(Vec::new()),
        Some(CharacterLength::IntegerLength { length, .. }) => Ok(vec![small(*length)?]),
    }
}

fn interval(
    fields: Option<&IntervalFields>,
    precision: Option<u64>,
) -> Result<(Type, i32), SqlError> {
    if let Some(fields) = fields {
        return Err(SqlError::unsupported(format!("interval {fields} is not supported"))
            .with_hint("Use interval without fields."));
    }
    with_modifiers(Type::Interval, &small_modifiers(precision)?)
}

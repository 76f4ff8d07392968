//! The kinds of columns.

use std::{collections::HashMap, iter::repeat_n, marker::PhantomData, sync::Arc};

use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, DictionaryArray, ListArray, PrimitiveArray, StringArray,
    builder::{BinaryBuilder, BooleanBuilder, PrimitiveBuilder},
    types::{Int32Type, TimestampMicrosecondType},
};
use arrow_schema::{DataType, Field, FieldRef};
use foldhash::fast::RandomState;
use indexmap::IndexSet;
use telemetry::v1;

/// A column that is being filled.
pub(crate) trait Column {
    /// Whether absent values may occur.
    const NULLABLE: bool;
    /// The filled column.
    fn array(self) -> ArrayRef;
}

/// A filled column with its name and type.
pub(crate) fn finish<C: Column>(name: &str, column: C) -> (FieldRef, ArrayRef) {
    let array = column.array();
    (Arc::new(Field::new(name, array.data_type().clone(), C::NULLABLE)), array)
}

/// Distinct texts, numbered from 0 in the order of their first appearance.
#[derive(Default)]
pub struct Texts(IndexSet<Box<str>, RandomState>);

impl Texts {
    /// The number of a text.
    pub fn key(&mut self, text: &str) -> i32 {
        let key = self.0.get_index_of(text).unwrap_or_else(|| self.0.insert_full(text.into()).0);
        // A batch has fewer rows than i32 has numbers: its size is bounded in bytes.
        key as i32
    }

    /// The text of a number that [`Texts::key`] gave.
    pub fn text(&self, key: i32) -> &str {
        &self.0[key as usize]
    }
}

/// Repeated text, each distinct value once.
#[derive(Default)]
pub(crate) struct Text {
    /// Keys of the rows, and how many rows in succession have each: rows of one report mostly have the same.
    runs: Vec<(i32, u32)>,
    texts: Texts,
}

impl Text {
    /// The key of a value, for [`Text::push_key`].
    pub fn key(&mut self, value: &str) -> i32 {
        self.texts.key(value)
    }

    /// Adds the value of a key.
    pub fn push_key(&mut self, key: i32) {
        match self.runs.last_mut() {
            Some((last, rows)) if *last == key => *rows += 1,
            _ => self.runs.push((key, 1)),
        }
    }

    /// Adds a value.
    pub fn push(&mut self, value: &str) {
        let repeated = self.runs.last().filter(|(key, _)| self.texts.text(*key) == value).map(|(key, _)| *key);
        let key = repeated.unwrap_or_else(|| self.key(value));
        self.push_key(key);
    }
}

impl Column for Text {
    const NULLABLE: bool = false;

    fn array(self) -> ArrayRef {
        let rows = self.runs.iter().map(|(_, rows)| *rows as usize).sum();
        let mut keys = Vec::with_capacity(rows);
        for (key, rows) in self.runs {
            keys.extend(repeat_n(key, rows as usize));
        }
        let values = StringArray::from_iter_values(self.texts.0);
        // Every key was handed out by `Texts::key`, so it is an index of `values`.
        Arc::new(DictionaryArray::new(PrimitiveArray::<Int32Type>::from(keys), Arc::new(values)))
    }
}

/// Columns of texts that belong together: rows that have one number have the same in each of them, so each text is looked up
/// once for a number instead of once for a row.
pub(crate) struct Shared<const N: usize> {
    texts: [Texts; N],
    /// Keys by place, in the order of first use.
    keys: Vec<[i32; N]>,
    /// Place of a number.
    places: HashMap<u32, u32, RandomState>,
    /// Places of the rows, and how many rows in succession have each.
    runs: Vec<(u32, u32)>,
    /// Number of the last row.
    last: Option<u32>,
}

impl<const N: usize> Default for Shared<N> {
    fn default() -> Self {
        Self {
            texts: std::array::from_fn(|_| Texts::default()),
            keys: Vec::new(),
            places: HashMap::default(),
            runs: Vec::new(),
            last: None,
        }
    }
}

impl<const N: usize> Shared<N> {
    /// Adds a row; `texts` is asked for a number's first one only.
    pub fn push<'t>(&mut self, number: u32, texts: impl FnOnce() -> [&'t str; N]) {
        if let Some((_, rows)) = self.runs.last_mut().filter(|_| self.last == Some(number)) {
            *rows += 1;
            return;
        }
        self.last = Some(number);
        let place = *self.places.entry(number).or_insert_with(|| {
            let texts = texts();
            self.keys.push(std::array::from_fn(|at| self.texts[at].key(texts[at])));
            (self.keys.len() - 1) as u32
        });
        self.runs.push((place, 1));
    }

    /// The filled columns, under these names.
    pub fn finish(self, names: [&str; N]) -> impl Iterator<Item = (FieldRef, ArrayRef)> {
        let Self { texts, keys, runs, .. } = self;
        let columns = texts.into_iter().zip(names).enumerate();
        let keyed =
            move |column: usize| runs.iter().map(|(place, rows)| (keys[*place as usize][column], *rows)).collect();
        columns.map(move |(at, (texts, name))| finish(name, Text { runs: keyed(at), texts }))
    }
}

/// The name of an enum's value as it stands in a table.
pub(crate) trait Named: TryFrom<i32> {
    /// Name without its prefix, empty for the unspecified value.
    fn text(&self) -> &'static str;
}

macro_rules! named {
    ($($name:ident: $prefix:literal,)*) => {
        $(impl Named for v1::$name {
            fn text(&self) -> &'static str {
                match self.as_str_name().strip_prefix($prefix) {
                    None | Some("UNSPECIFIED") => "",
                    Some(text) => text,
                }
            }
        })*
    };
}

named! {
    AllergyResult: "ALLERGY_RESULT_",
    Area: "AREA_",
    Channel: "CHANNEL_",
    DepthSource: "DEPTH_SOURCE_",
    DoseSource: "DOSE_SOURCE_",
    FaultState: "FAULT_STATE_",
    IdKind: "ID_KIND_",
    IndicatorKind: "INDICATOR_KIND_",
    IndicatorResult: "INDICATOR_RESULT_",
    Licence: "LICENCE_",
    Mode: "MODE_",
    Outcome: "OUTCOME_",
    Phase: "PHASE_",
    Purpose: "PURPOSE_",
    ReleaseDecision: "RELEASE_DECISION_",
    ResidualSource: "RESIDUAL_SOURCE_",
    RinseWater: "RINSE_WATER_",
    Slot: "SLOT_",
    State: "STATE_",
}

/// An enum as text: its name, empty for unspecified, the number for a value this version does not know.
pub(crate) struct Code<E> {
    text: Text,
    /// Keys of the numbers seen; an enum has few.
    seen: Vec<(i32, i32)>,
    kind: PhantomData<E>,
}

impl<E> Default for Code<E> {
    fn default() -> Self {
        Self { text: Text::default(), seen: Vec::new(), kind: PhantomData }
    }
}

impl<E: Named> Code<E> {
    /// Adds the value with this number.
    pub fn push(&mut self, number: i32) {
        let seen = self.seen.iter().find(|(code, _)| *code == number).map(|(_, key)| *key);
        let key = seen.unwrap_or_else(|| {
            let key = match E::try_from(number) {
                Ok(value) => self.text.key(value.text()),
                Err(_) => self.text.key(&number.to_string()),
            };
            // An attacker's numbers must not turn the short list into a long one.
            if self.seen.len() < 64 {
                self.seen.push((number, key));
            }
            key
        });
        self.text.push_key(key);
    }
}

impl<E> Column for Code<E> {
    const NULLABLE: bool = false;

    fn array(self) -> ArrayRef {
        self.text.array()
    }
}

/// Integers that are always there.
pub(crate) struct Number<T: ArrowPrimitiveType>(Vec<T::Native>);

impl<T: ArrowPrimitiveType> Default for Number<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: ArrowPrimitiveType> Number<T> {
    /// With room for so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self(Vec::with_capacity(rows))
    }

    /// Adds a value.
    pub fn push(&mut self, value: T::Native) {
        self.0.push(value);
    }
}

impl<T: ArrowPrimitiveType> Column for Number<T>
where
    PrimitiveArray<T>: From<Vec<T::Native>>,
{
    const NULLABLE: bool = false;

    fn array(self) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::from(self.0))
    }
}

impl<T: ArrowPrimitiveType> Column for PrimitiveBuilder<T> {
    const NULLABLE: bool = true;

    fn array(mut self) -> ArrayRef {
        Arc::new(self.finish())
    }
}

/// Times, us since 1970.
#[derive(Default)]
pub(crate) struct Time(Vec<i64>);

impl Time {
    /// With room for so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self(Vec::with_capacity(rows))
    }

    /// Adds a time.
    pub fn push(&mut self, unix_us: i64) {
        self.0.push(unix_us);
    }
}

impl Column for Time {
    const NULLABLE: bool = false;

    fn array(self) -> ArrayRef {
        Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from(self.0).with_timezone("UTC"))
    }
}

/// Times that may be absent, us since 1970.
#[derive(Default)]
pub(crate) struct MaybeTime(PrimitiveBuilder<TimestampMicrosecondType>);

impl MaybeTime {
    /// Adds a time or its absence.
    pub fn push(&mut self, unix_us: Option<i64>) {
        self.0.append_option(unix_us);
    }
}

impl Column for MaybeTime {
    const NULLABLE: bool = true;

    fn array(mut self) -> ArrayRef {
        Arc::new(self.0.finish().with_timezone("UTC"))
    }
}

/// Truth values that may be absent.
#[derive(Default)]
pub(crate) struct Bits(BooleanBuilder);

impl Bits {
    /// Adds a value or its absence.
    pub fn push(&mut self, value: Option<bool>) {
        self.0.append_option(value);
    }
}

impl Column for Bits {
    const NULLABLE: bool = true;

    fn array(mut self) -> ArrayRef {
        let array: BooleanArray = self.0.finish();
        Arc::new(array)
    }
}

/// Bytes or text that hardly repeat.
#[derive(Default)]
pub(crate) struct Bytes(BinaryBuilder);

impl Bytes {
    /// Adds a value.
    pub fn push(&mut self, value: impl AsRef<[u8]>) {
        self.0.append_value(value);
    }
}

impl Column for Bytes {
    const NULLABLE: bool = false;

    fn array(mut self) -> ArrayRef {
        let array: BinaryArray = self.0.finish();
        Arc::new(array)
    }
}

/// Lists of integers.
pub(crate) struct List<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    ends: Vec<i32>,
}

impl<T: ArrowPrimitiveType> Default for List<T> {
    fn default() -> Self {
        Self { values: Vec::new(), ends: vec![0] }
    }
}

impl<T: ArrowPrimitiveType> List<T> {
    /// Adds a list.
    pub fn push(&mut self, values: impl IntoIterator<Item = T::Native>) {
        self.values.extend(values);
        self.ends.push(self.values.len() as i32);
    }
}

impl<T: ArrowPrimitiveType> Column for List<T>
where
    PrimitiveArray<T>: From<Vec<T::Native>>,
{
    const NULLABLE: bool = false;

    fn array(self) -> ArrayRef {
        let item = Arc::new(Field::new("item", T::DATA_TYPE, false));
        let offsets = arrow_buffer::OffsetBuffer::new(self.ends.into());
        Arc::new(ListArray::new(item, offsets, Arc::new(PrimitiveArray::<T>::from(self.values)), None))
    }
}

/// A column that repeats one value.
pub(crate) fn repeat<T: ArrowPrimitiveType>(name: &str, value: T::Native, rows: usize) -> (FieldRef, ArrayRef)
where
    PrimitiveArray<T>: From<Vec<T::Native>>,
{
    let array = PrimitiveArray::<T>::from(vec![value; rows]);
    let kind: DataType = T::DATA_TYPE;
    (Arc::new(Field::new(name, kind, false)), Arc::new(array))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shared_columns_are_what_each_text_by_itself_makes(
            texts in prop::collection::vec(prop::array::uniform2("[a-c]{0,2}"), 1..6),
            rows in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let (mut shared, mut each) = (Shared::<2>::default(), [Text::default(), Text::default()]);
            for row in rows {
                let number = row.index(texts.len());
                let texts = texts[number].each_ref().map(String::as_str);
                shared.push(number as u32, || texts);
                each.iter_mut().zip(texts).for_each(|(column, text)| column.push(text));
            }
            let names = ["a", "b"];
            let each: Vec<_> = names.into_iter().zip(each).map(|(name, column)| finish(name, column)).collect();
            prop_assert_eq!(shared.finish(names).collect::<Vec<_>>(), each);
        }
    }
}

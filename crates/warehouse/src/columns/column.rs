//! The kinds of Arrow columns that the tables are built from.

use std::{iter::repeat_n, marker::PhantomData, sync::Arc};

use arrow_array::{
    Array as _, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, DictionaryArray, ListArray, PrimitiveArray,
    StringArray,
    builder::{BinaryBuilder, BooleanBuilder},
    types::{ArrowDictionaryKeyType, Int32Type, TimestampMicrosecondType, UInt8Type, UInt16Type},
};
use arrow_buffer::NullBufferBuilder;
use arrow_schema::{DataType, Field, FieldRef};
use foldhash::quality::RandomState;
use indexmap::IndexSet;
use telemetry::v1;

/// A column that is being filled.
pub(crate) trait Column {
    /// Whether the column may hold absent values.
    const NULLABLE: bool;
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
    /// Each run is a key and the number of successive rows that have it. The rows of one report
    /// mostly share their texts.
    runs: Vec<(i32, u32)>,
    texts: Texts,
}

impl Text {
    /// The key of a value, for [`Text::push_key`].
    pub fn key(&mut self, value: &str) -> i32 {
        self.texts.key(value)
    }

    /// Adds a row with the text of a key.
    #[inline]
    pub fn push_key(&mut self, key: i32) {
        push_run(&mut self.runs, key);
    }

    pub fn push(&mut self, value: &str) {
        let repeated = self.runs.last().filter(|(key, _)| self.texts.text(*key) == value).map(|(key, _)| *key);
        let key = repeated.unwrap_or_else(|| self.key(value));
        self.push_key(key);
    }
}

impl Column for Text {
    const NULLABLE: bool = false;

    fn array(self) -> ArrayRef {
        dictionary(&self.runs, |key| key, StringArray::from_iter_values(self.texts.0))
    }
}

/// `N` columns whose texts come from one [`Texts`].
pub(crate) struct Words<const N: usize>([Vec<(i32, u32)>; N]);

impl<const N: usize> Default for Words<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Vec::new()))
    }
}

impl<const N: usize> Words<N> {
    /// Adds one row: the text of a key for each column.
    pub fn push(&mut self, keys: [i32; N]) {
        self.0.iter_mut().zip(keys).for_each(|(runs, key)| push_run(runs, key));
    }

    pub fn finish(self, names: [&str; N], texts: &Texts) -> impl Iterator<Item = (FieldRef, ArrayRef)> {
        let column = |(name, runs): (_, Vec<_>)| {
            words(name, &runs, &seen(&runs, texts.0.len()), texts.0.len(), |key| key, texts)
        };
        names.into_iter().zip(self.0).map(column)
    }
}

/// The distinct places that occur in `runs`, in the order of their first rows. Places are below
/// `places`.
pub(crate) fn seen(runs: &[(i32, u32)], places: usize) -> Vec<i32> {
    // Most tables of a batch are empty.
    let (mut is_seen, mut seen) = (vec![false; if runs.is_empty() { 0 } else { places }], Vec::new());
    for (place, _) in runs {
        if !std::mem::replace(&mut is_seen[*place as usize], true) {
            seen.push(*place);
        }
    }
    seen
}

/// A dictionary column of texts. `runs` gives the place of successive rows and how many rows have
/// it; places are below `places`. `seen` is the answer of [`seen`] for these runs, and `key` gives
/// a place's key in `texts`. The dictionary holds only the texts that occur, in the order of their
/// first rows.
pub(crate) fn words(
    name: &str,
    runs: &[(i32, u32)],
    seen: &[i32],
    places: usize,
    key: impl Fn(i32) -> i32,
    texts: &Texts,
) -> (FieldRef, ArrayRef) {
    let most = |count: usize| if runs.is_empty() { 0 } else { count };
    let (mut of_place, mut of_key, mut used) = (vec![0; most(places)], vec![-1; most(texts.0.len())], Vec::new());
    for place in seen {
        let key = key(*place);
        let known = &mut of_key[key as usize];
        if *known < 0 {
            *known = used.len() as i32;
            used.push(key);
        }
        of_place[*place as usize] = *known;
    }
    let values = StringArray::from_iter_values(used.into_iter().map(|key| texts.text(key)));
    let array = dictionary(runs, |place| of_place[place as usize], values);
    (Arc::new(Field::new(name, array.data_type().clone(), false)), array)
}

#[inline]
pub(crate) fn push_run<T: PartialEq>(runs: &mut Vec<(T, u32)>, value: T) {
    match runs.last_mut() {
        Some((last, rows)) if *last == value => *rows += 1,
        _ => runs.push((value, 1)),
    }
}

/// A dictionary array over distinct texts; `entry` gives the dictionary entry of a run. The key
/// type is the narrowest that leaves half of its range free. ClickHouse adds an empty text to a
/// dictionary that has none.
fn dictionary(runs: &[(i32, u32)], entry: impl Fn(i32) -> i32, texts: StringArray) -> ArrayRef {
    match texts.len() {
        0..0x7f => keyed::<UInt8Type>(runs, |place| entry(place) as u8, texts),
        0x7f..0x7fff => keyed::<UInt16Type>(runs, |place| entry(place) as u16, texts),
        _ => keyed::<Int32Type>(runs, entry, texts),
    }
}

fn keyed<K: ArrowDictionaryKeyType>(
    runs: &[(i32, u32)],
    entry: impl Fn(i32) -> K::Native,
    texts: StringArray,
) -> ArrayRef
where
    PrimitiveArray<K>: From<Vec<K::Native>>,
{
    let mut keys = Vec::with_capacity(runs.iter().map(|(_, rows)| *rows as usize).sum());
    for (place, rows) in runs {
        match rows {
            1 => keys.push(entry(*place)),
            _ => keys.extend(repeat_n(entry(*place), *rows as usize)),
        }
    }
    Arc::new(DictionaryArray::<K>::new(keys.into(), Arc::new(texts)))
}

/// The name of an enum's value as it stands in a table.
pub(crate) trait Named: TryFrom<i32> {
    /// The name without its prefix; empty for the unspecified value.
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

/// An enum as text: its name, or empty for unspecified. A value that this version does not know is
/// written as its number.
pub(crate) struct Code<E> {
    text: Text,
    /// Keys of the numbers that occurred. An enum has few values, so a search in the list is fast.
    seen: Vec<(i32, i32)>,
    /// The last number and its key.
    last: Option<(i32, i32)>,
    kind: PhantomData<E>,
}

impl<E> Default for Code<E> {
    fn default() -> Self {
        Self { text: Text::default(), seen: Vec::new(), last: None, kind: PhantomData }
    }
}

impl<E: Named> Code<E> {
    /// Adds the value with this protobuf number.
    #[inline]
    pub fn push(&mut self, number: i32) {
        let key = match self.last {
            Some((last, key)) if last == number => key,
            _ => self.key(number),
        };
        self.text.push_key(key);
    }

    fn key(&mut self, number: i32) -> i32 {
        let seen = self.seen.iter().find(|(code, _)| *code == number).map(|(_, key)| *key);
        let key = seen.unwrap_or_else(|| {
            let key = match E::try_from(number) {
                Ok(value) => self.text.key(value.text()),
                Err(_) => self.text.key(&number.to_string()),
            };
            // A sender of many unknown numbers must not turn the short list into a long one.
            if self.seen.len() < 64 {
                self.seen.push((number, key));
            }
            key
        });
        self.last = Some((number, key));
        key
    }
}

impl<E> Column for Code<E> {
    const NULLABLE: bool = false;

    fn array(self) -> ArrayRef {
        self.text.array()
    }
}

/// Integers that are never absent.
pub(crate) struct Number<T: ArrowPrimitiveType>(Vec<T::Native>);

impl<T: ArrowPrimitiveType> Default for Number<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: ArrowPrimitiveType> Number<T> {
    pub fn with_capacity(rows: usize) -> Self {
        Self(Vec::with_capacity(rows))
    }

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

pub(crate) struct Maybe<T: ArrowPrimitiveType> {
    /// The values; an absent one is stored as the default.
    values: Vec<T::Native>,
    /// Runs of rows that have a value and of rows that have none. A device mostly measures a value
    /// always or never.
    runs: Vec<(bool, u32)>,
}

impl<T: ArrowPrimitiveType> Default for Maybe<T> {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl<T: ArrowPrimitiveType> Maybe<T> {
    pub fn with_capacity(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), runs: Vec::new() }
    }

    #[inline]
    pub fn push(&mut self, value: Option<T::Native>) {
        self.values.push(value.unwrap_or_default());
        push_run(&mut self.runs, value.is_some());
    }

    fn filled(self) -> PrimitiveArray<T> {
        let mut nulls = NullBufferBuilder::new(self.values.len());
        for (there, rows) in self.runs {
            match there {
                true => nulls.append_n_non_nulls(rows as usize),
                false => nulls.append_n_nulls(rows as usize),
            }
        }
        PrimitiveArray::new(self.values.into(), nulls.finish())
    }
}

impl<T: ArrowPrimitiveType> Column for Maybe<T> {
    const NULLABLE: bool = true;

    fn array(self) -> ArrayRef {
        Arc::new(self.filled())
    }
}

/// Times, us since 1970.
#[derive(Default)]
pub(crate) struct Time(Vec<i64>);

impl Time {
    pub fn with_capacity(rows: usize) -> Self {
        Self(Vec::with_capacity(rows))
    }

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
pub(crate) struct MaybeTime(Maybe<TimestampMicrosecondType>);

impl MaybeTime {
    pub fn push(&mut self, unix_us: Option<i64>) {
        self.0.push(unix_us);
    }
}

impl Column for MaybeTime {
    const NULLABLE: bool = true;

    fn array(self) -> ArrayRef {
        Arc::new(self.0.filled().with_timezone("UTC"))
    }
}

/// Truth values that may be absent.
#[derive(Default)]
pub(crate) struct Bits(BooleanBuilder);

impl Bits {
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

/// Bytes or text that rarely repeat, stored without a dictionary.
#[derive(Default)]
pub(crate) struct Bytes(BinaryBuilder);

impl Bytes {
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

/// Lists of texts.
#[derive(Default)]
pub(crate) struct Lines {
    texts: Vec<String>,
    ends: Vec<i32>,
}

impl Lines {
    pub fn push(&mut self, texts: &[String]) {
        self.texts.extend_from_slice(texts);
        self.ends.push(self.texts.len() as i32);
    }
}

impl Column for Lines {
    const NULLABLE: bool = false;

    fn array(self) -> ArrayRef {
        let item = Arc::new(Field::new("item", DataType::Utf8, false));
        let ends: Vec<i32> = std::iter::once(0).chain(self.ends).collect();
        let texts = Arc::new(StringArray::from_iter_values(self.texts));
        Arc::new(ListArray::new(item, arrow_buffer::OffsetBuffer::new(ends.into()), texts, None))
    }
}

/// A column in which every row has the same value.
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
    use arrow_array::{cast::AsArray as _, types::UInt32Type};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_are_what_their_texts_by_themselves_make(
            others in prop::collection::vec("[a-c]{0,2}", 0..9),
            rows in prop::collection::vec("[a-c]{0,2}", 0..40),
        ) {
            let (mut texts, mut words, mut text) = (Texts::default(), Words::<1>::default(), Text::default());
            for other in others {
                texts.key(&other);
            }
            for row in &rows {
                words.push([texts.key(row)]);
                text.push(row);
            }
            prop_assert_eq!(words.finish(["a"], &texts).next(), Some(finish("a", text)));
        }

        #[test]
        fn keys_are_as_wide_as_they_must_be(texts in prop_oneof![0usize..300, 32_700usize..32_800]) {
            let mut column = Text::default();
            for text in 0..texts {
                column.push(&text.to_string());
            }
            let array = column.array();
            let keys = array.as_any_dictionary();
            let width = match texts {
                0..127 => DataType::UInt8,
                127..32_767 => DataType::UInt16,
                _ => DataType::Int32,
            };
            prop_assert_eq!(keys.keys().data_type(), &width);
            if texts > 0 {
                prop_assert_eq!(keys.normalized_keys(), (0..texts).collect::<Vec<_>>());
            }
        }

        #[test]
        fn what_may_be_absent_is_there_or_not(rows in prop::collection::vec(any::<Option<u32>>(), 0..200)) {
            let mut column = Maybe::<UInt32Type>::default();
            rows.iter().for_each(|row| column.push(*row));
            prop_assert_eq!(column.filled(), PrimitiveArray::<UInt32Type>::from(rows));
        }
    }
}

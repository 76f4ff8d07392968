//! GS1 element strings, which people scan and type.

use analysis::gs1::{ElementString, item, lot, product};

/// A valid element string is read the same in its form with brackets. What is compared of an item
/// or a product is compared the same once more.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for compared in [item, product] {
        let once = compared(text);
        assert_eq!(compared(&once), once);
    }
    lot(text);
    let Ok(read) = ElementString::parse(text, 2026) else { return };
    // In the form with brackets, `(21)` in a value is the next element.
    if read.elements.iter().all(|element| !element.value.contains('(')) {
        let bracketed: String =
            read.elements.iter().map(|element| format!("({}){}", element.ai, element.value)).collect();
        assert_eq!(ElementString::parse(&bracketed, 2026), Ok(read), "{bracketed:?}");
    }
}

//! Bytes as lower-case hexadecimal digits.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// All bytes as digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| pair(*byte).map(char::from)).collect()
}

/// The first 16 bytes as digits, without an allocation.
pub fn short_hex<'d>(bytes: &[u8], digits: &'d mut [u8; 32]) -> &'d str {
    for (byte, digits) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        digits.copy_from_slice(&pair(*byte));
    }
    std::str::from_utf8(&digits[..2 * bytes.len().min(16)]).unwrap_or_default()
}

fn pair(byte: u8) -> [u8; 2] {
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_the_same_digits() {
        let bytes: Vec<u8> = (0..16).map(|n| n * 17).collect();
        assert_eq!(hex(&bytes), "00112233445566778899aabbccddeeff");
        assert_eq!(short_hex(&bytes, &mut [0; 32]), hex(&bytes));
        assert_eq!(short_hex(&[7; 20], &mut [0; 32]), hex(&[7; 16]));
        assert_eq!(short_hex(&[], &mut [0; 32]), "");
    }
}

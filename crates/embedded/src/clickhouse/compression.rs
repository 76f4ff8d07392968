//! The two compressions of ClickHouse's HTTP interface: its own blocks (`compress=1`,
//! `decompress=1`) and HTTP content encodings.

use std::io::{self, Read, Write};

/// Size of a block's checksum, bytes.
const CHECKSUM: usize = 16;
/// Size of a block's method and its two sizes, bytes.
const HEADER: usize = 9;
/// Size of the blocks into which a result is cut before compression, bytes, as in ClickHouse.
const BLOCK_BYTES: usize = 1 << 20;
/// Largest block of the owner, bytes. Clients cut their data into pieces of 1 MiB, or send one
/// batch as one block.
pub const OWNER_BLOCK_BYTES_MAX: usize = 64 << 20;
/// Largest block of a reader, bytes. A reader only sends statements.
pub const READER_BLOCK_BYTES_MAX: usize = 1 << 20;
/// LZ4 expands one byte to at most this many bytes.
const LZ4_RATIO_MAX: usize = 255;
/// How far a Zstandard body may refer back, as a power of two, bytes. Its decoder keeps as much.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const LZ4: u8 = 0x82;
const ZSTD: u8 = 0x90;
const NONE: u8 = 0x02;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Lz4,
    Zstd,
    Gzip,
    /// zlib, which HTTP calls deflate.
    Deflate,
}

impl Encoding {
    /// The encoding that a `Content-Encoding` header names.
    pub fn parse(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// The cheapest known encoding that the client accepts.
    pub fn choose(accept: &str) -> Option<Self> {
        let accepted: Vec<Self> =
            accept.split(',').filter_map(|one| Self::parse(one.split(';').next().unwrap_or_default())).collect();
        [Self::Lz4, Self::Zstd, Self::Gzip, Self::Deflate].into_iter().find(|one| accepted.contains(one))
    }

    /// The name for the `Content-Encoding` header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// A reader of the plain bytes of a compressed `body`.
    ///
    /// # Errors
    /// The decoder has no memory.
    pub fn decode(self, body: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(body)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::new(body)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
            Self::Deflate => Box::new(flate2::read::ZlibDecoder::new(body)),
        })
    }
}

/// Compresses the body of a response. The compressed bytes are taken out of it piece by piece.
pub enum Encoder {
    /// The bytes stay as they are.
    Plain(Vec<u8>),
    /// ClickHouse's blocks: bytes that are not in a block yet, and finished blocks.
    Blocks(Vec<u8>, Vec<u8>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
}

impl Encoder {
    pub const fn blocks() -> Self {
        Self::Blocks(Vec::new(), Vec::new())
    }

    /// An encoder for a content encoding; `None` = no encoding.
    ///
    /// # Errors
    /// The encoder has no memory.
    pub fn content(encoding: Option<Encoding>) -> io::Result<Self> {
        let fast = flate2::Compression::fast();
        Ok(match encoding {
            None => Self::Plain(Vec::new()),
            Some(Encoding::Lz4) => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(Vec::new()))),
            Some(Encoding::Zstd) => Self::Zstd(zstd::Encoder::new(Vec::new(), 1)?),
            Some(Encoding::Gzip) => Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), fast)),
            Some(Encoding::Deflate) => Self::Deflate(flate2::write::ZlibEncoder::new(Vec::new(), fast)),
        })
    }

    /// Adds plain bytes.
    ///
    /// # Errors
    /// The codec failed.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.extend_from_slice(bytes),
            Self::Blocks(open, out) => {
                open.extend_from_slice(bytes);
                while open.len() >= BLOCK_BYTES {
                    write_block(&open[..BLOCK_BYTES], out)?;
                    open.drain(..BLOCK_BYTES);
                }
            }
            Self::Lz4(encoder) => encoder.write_all(bytes)?,
            Self::Zstd(encoder) => encoder.write_all(bytes)?,
            Self::Gzip(encoder) => encoder.write_all(bytes)?,
            Self::Deflate(encoder) => encoder.write_all(bytes)?,
        }
        Ok(())
    }

    /// Closes the current block, so that the client can read everything that was written.
    ///
    /// # Errors
    /// The codec failed.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Blocks(open, out) => {
                if !open.is_empty() {
                    write_block(open, out)?;
                    open.clear();
                }
                Ok(())
            }
            Self::Lz4(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Deflate(encoder) => encoder.flush(),
        }
    }

    /// Takes the compressed bytes that are ready.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(match self {
            Self::Plain(out) | Self::Blocks(_, out) => out,
            Self::Lz4(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
        })
    }

    /// Ends the document and returns the remaining bytes.
    ///
    /// # Errors
    /// The codec failed.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.flush()?;
        match self {
            Self::Plain(out) | Self::Blocks(_, out) => Ok(out),
            Self::Lz4(encoder) => encoder.finish().map_err(io::Error::other),
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Deflate(encoder) => encoder.finish(),
        }
    }
}

/// CityHash 1.0.2 in the byte order of ClickHouse's block format.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    cityhash_rs::cityhash_102_128(bytes).rotate_right(64).to_le_bytes()
}

fn write_block(plain: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    out.resize(start + CHECKSUM + HEADER + lz4_flex::block::get_maximum_output_size(plain.len()), 0);
    let compressed =
        lz4_flex::block::compress_into(plain, &mut out[start + CHECKSUM + HEADER..]).map_err(io::Error::other)?;
    out.truncate(start + CHECKSUM + HEADER + compressed);
    let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
    let block = &mut out[start + CHECKSUM..];
    block[0] = LZ4;
    block[1..5].copy_from_slice(&size(HEADER + compressed)?.to_le_bytes());
    block[5..9].copy_from_slice(&size(plain.len())?.to_le_bytes());
    let checksum = checksum(block);
    out[start..start + CHECKSUM].copy_from_slice(&checksum);
    Ok(())
}

/// Reads ClickHouse's blocks from a body and checks each checksum. It holds one block at a time.
pub struct BlockReader {
    body: Box<dyn Read + Send>,
    bytes_max: usize,
    plain: Vec<u8>,
    at: usize,
}

impl BlockReader {
    /// A reader of the blocks in `body`. No block may exceed `bytes_max` bytes, compressed or
    /// plain.
    pub fn new(body: Box<dyn Read + Send>, bytes_max: usize) -> Self {
        Self { body, bytes_max, plain: Vec::new(), at: 0 }
    }

    /// Returns `false` at the end of the body.
    fn next_block(&mut self) -> io::Result<bool> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut head = [0; CHECKSUM + HEADER];
        if self.body.read(&mut head[..1])? == 0 {
            return Ok(false);
        }
        self.body.read_exact(&mut head[1..])?;
        let (expected, header) = head.split_at(CHECKSUM);
        let size = |at: usize| header[at..at + 4].iter().rev().fold(0, |size, byte| size << 8 | usize::from(*byte));
        let (compressed, plain) = (size(1), size(5));
        if !(HEADER..=self.bytes_max).contains(&compressed) || plain > self.bytes_max {
            return Err(invalid("size of a compressed block is out of range: is the body compressed at all?"));
        }
        let mut block = header.to_vec();
        // The buffer grows with the bytes that arrive, so a false size costs nothing.
        (&mut self.body).take((compressed - HEADER) as u64).read_to_end(&mut block)?;
        if block.len() != compressed {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if checksum(&block) != expected {
            return Err(invalid("checksum of a compressed block does not match"));
        }
        let data = &block[HEADER..];
        if block[0] == LZ4 && plain / LZ4_RATIO_MAX > data.len() {
            return Err(invalid("a compressed block does not have the size it names"));
        }
        // Free the old block before the next one is allocated.
        self.plain = Vec::new();
        self.plain = match block[0] {
            NONE => data.to_vec(),
            LZ4 => lz4_flex::block::decompress(data, plain).map_err(|error| invalid(&error.to_string()))?,
            ZSTD => zstd::bulk::decompress(data, plain)?,
            method => return Err(invalid(&format!("unknown compression method {method:#04x}"))),
        };
        if self.plain.len() != plain {
            return Err(invalid("a compressed block does not have the size it names"));
        }
        self.at = 0;
        Ok(true)
    }
}

impl Read for BlockReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = out.len().min(self.plain.len() - self.at);
        out[..count].copy_from_slice(&self.plain[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> Vec<u8> {
        (0..400_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect()
    }

    #[test]
    fn blocks_come_back_and_are_checked() {
        let text = text();
        let mut encoder = Encoder::blocks();
        for part in text.chunks(77_777) {
            encoder.write(part).unwrap();
        }
        let blocks = encoder.finish().unwrap();
        assert!(blocks.len() < text.len());
        let mut read = Vec::new();
        let reader = |blocks: Vec<u8>| BlockReader::new(Box::new(io::Cursor::new(blocks)), OWNER_BLOCK_BYTES_MAX);
        reader(blocks.clone()).read_to_end(&mut read).unwrap();
        assert_eq!(read, text);

        let mut broken = blocks.clone();
        broken[100] ^= 1;
        let error = reader(broken).read_to_end(&mut read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let cut = blocks[..blocks.len() - 1].to_vec();
        let error = reader(cut).read_to_end(&mut read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_small_block_does_not_become_a_large_one() {
        let read = |plain: &[u8], bytes_max: usize| {
            let mut block = Vec::new();
            write_block(plain, &mut block).unwrap();
            let mut reader = BlockReader::new(Box::new(io::Cursor::new(block)), bytes_max);
            let refused = reader.read(&mut [0; 1]).err().map(|error| error.kind());
            (refused, reader.plain.capacity())
        };
        let zeros = vec![0; OWNER_BLOCK_BYTES_MAX + 1];
        assert_eq!(read(&zeros, OWNER_BLOCK_BYTES_MAX), (Some(io::ErrorKind::InvalidData), 0));
        assert_eq!(read(&zeros[1..], READER_BLOCK_BYTES_MAX), (Some(io::ErrorKind::InvalidData), 0));
        assert_eq!(read(&zeros[1..], OWNER_BLOCK_BYTES_MAX).0, None);
        // A size that the bytes cannot have.
        let mut block = Vec::new();
        write_block(b"short", &mut block).unwrap();
        block[CHECKSUM + 5..CHECKSUM + 9].copy_from_slice(&(16_u32 << 20).to_le_bytes());
        let sum = checksum(&block[CHECKSUM..]);
        block[..CHECKSUM].copy_from_slice(&sum);
        let mut reader = BlockReader::new(Box::new(io::Cursor::new(block)), OWNER_BLOCK_BYTES_MAX);
        assert_eq!(reader.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn content_encodings_come_back() {
        let text = text();
        for encoding in [Encoding::Lz4, Encoding::Zstd, Encoding::Gzip, Encoding::Deflate] {
            let mut encoder = Encoder::content(Some(encoding)).unwrap();
            let mut out = Vec::new();
            for part in text.chunks(99_999) {
                encoder.write(part).unwrap();
                out.extend(encoder.take());
            }
            out.extend(encoder.finish().unwrap());
            let mut read = Vec::new();
            encoding.decode(Box::new(io::Cursor::new(out))).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, text, "{encoding:?}");
        }
        assert_eq!(Encoding::choose("br, gzip;q=0.5, zstd"), Some(Encoding::Zstd));
        assert_eq!(Encoding::choose("br"), None);
    }
}

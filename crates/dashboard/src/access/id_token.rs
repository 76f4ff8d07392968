//! Checks an ID token: the statement of an OpenID provider about somebody who signed in.
//!
//! The token is a JWT (RFC 7519). OpenSSL checks its signature with a key that the provider
//! publishes (RFC 7517). Only signatures with a public key are taken: RS256, PS256 and ES256. The
//! algorithm has to fit the kind of the key, so `none`, or a key taken as a secret, opens nothing.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openssl::{
    bn::BigNum,
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    error::ErrorStack,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Public},
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Verifier},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longest token, bytes.
const BYTES_MAX: usize = 32 * 1_024;
/// Smallest RSA key, bits.
const RSA_BITS_MIN: u32 = 2_048;
/// Longest subject, as OpenID Connect Core 1.0 has it.
const SUBJECT_BYTES_MAX: usize = 255;
/// How far the clocks of provider and dashboard may differ, s.
pub const CLOCK_SKEW_S: u64 = 60;

/// The keys that a provider publishes (`jwks_uri`).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Keys {
    keys: Vec<Key>,
}

/// One of them. Kinds that are not known here are kept and not used.
#[derive(Clone, Debug, Deserialize)]
struct Key {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// What a token has to say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
    pub now_s: u64,
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("it is no signed JWT")]
    Form,
    #[error("it is signed with {0:?}; RS256, PS256 and ES256 are taken")]
    Algorithm(String),
    /// The provider may have new keys.
    #[error("the provider publishes no key that signs it")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it was issued by {0:?}, which is not serve.oidc.issuer")]
    Issuer(String),
    #[error("it is for another client than serve.oidc.client_id (aud, azp)")]
    Audience,
    #[error("it has expired, or is not valid yet; compare the clocks of both machines")]
    Time,
    #[error("it belongs to another attempt to sign in (nonce)")]
    Nonce,
    #[error("it names nobody (sub)")]
    Subject,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// The claims of a token that is signed by one of the keys and says what is expected.
///
/// # Errors
/// Why it is refused.
pub fn check(token: &str, keys: &Keys, expected: &Expected<'_>) -> Result<Map<String, Value>, Refused> {
    if token.len() > BYTES_MAX {
        return Err(Refused::Form);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Form)?;
    let (header, claims) = signed.split_once('.').ok_or(Refused::Form)?;
    let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| Refused::Form)?;
    // Whatever has to be understood beyond this is not.
    if header.crit.is_some() {
        return Err(Refused::Form);
    }
    let algorithm = Algorithm::named(&header.alg).ok_or_else(|| Refused::Algorithm(header.alg.clone()))?;
    let key = keys.find(algorithm, &header)?;
    if !algorithm.verifies(key, signed.as_bytes(), &decoded(signature)?) {
        return Err(Refused::Signature);
    }
    let claims: Map<String, Value> = serde_json::from_slice(&decoded(claims)?).map_err(|_| Refused::Form)?;
    expected.of(&claims)?;
    Ok(claims)
}

fn decoded(text: &str) -> Result<Vec<u8>, Refused> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Form)
}

impl Keys {
    /// The key that a token names, or the only one that fits if it names none.
    fn find(&self, algorithm: Algorithm, header: &Header) -> Result<&Key, Refused> {
        let mut fitting = self.keys.iter().filter(|key| {
            key.kty == algorithm.kind()
                && key.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
                && key.alg.as_deref().is_none_or(|name| name == header.alg)
                && (header.kid.is_none() || key.kid == header.kid)
        });
        let key = fitting.next().ok_or(Refused::UnknownKey)?;
        if fitting.next().is_some() { Err(Refused::UnknownKey) } else { Ok(key) }
    }
}

#[derive(Clone, Copy)]
enum Algorithm {
    Rs256,
    Ps256,
    Es256,
}

impl Algorithm {
    fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "PS256" => Some(Self::Ps256),
            "ES256" => Some(Self::Es256),
            _ => None,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Rs256 | Self::Ps256 => "RSA",
            Self::Es256 => "EC",
        }
    }

    fn verifies(self, key: &Key, signed: &[u8], signature: &[u8]) -> bool {
        let outcome = match self {
            Self::Rs256 => key.rsa().and_then(|key| verify(&key, Padding::PKCS1, signed, signature)),
            Self::Ps256 => key.rsa().and_then(|key| verify(&key, Padding::PKCS1_PSS, signed, signature)),
            Self::Es256 => key.p256().and_then(|key| verify_p256(&key, signed, signature)),
        };
        outcome.unwrap_or(false)
    }
}

fn verify(key: &PKey<Public>, padding: Padding, signed: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
    let mut verifier = Verifier::new(MessageDigest::sha256(), key)?;
    verifier.set_rsa_padding(padding)?;
    if padding == Padding::PKCS1_PSS {
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
        verifier.set_rsa_mgf1_md(MessageDigest::sha256())?;
    }
    verifier.verify_oneshot(signature, signed)
}

/// A signature is two numbers of 32 bytes (RFC 7518).
fn verify_p256(key: &EcKey<Public>, signed: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
    if signature.len() != 64 {
        return Ok(false);
    }
    let (r, s) = signature.split_at(32);
    let signature = EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
    signature.verify(&openssl::sha::sha256(signed), key)
}

impl Key {
    fn rsa(&self) -> Result<PKey<Public>, ErrorStack> {
        let key = Rsa::from_public_components(number(self.n.as_deref())?, number(self.e.as_deref())?)?;
        if key.n().num_bits().unsigned_abs() < RSA_BITS_MIN {
            return Err(ErrorStack::get());
        }
        PKey::from_rsa(key)
    }

    fn p256(&self) -> Result<EcKey<Public>, ErrorStack> {
        if self.crv.as_deref() != Some("P-256") {
            return Err(ErrorStack::get());
        }
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let (x, y) = (number(self.x.as_deref())?, number(self.y.as_deref())?);
        let key = EcKey::from_public_key_affine_coordinates(&group, &x, &y)?;
        key.check_key()?;
        Ok(key)
    }
}

fn number(text: Option<&str>) -> Result<BigNum, ErrorStack> {
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or_else(ErrorStack::get)?;
    BigNum::from_slice(&bytes)
}

impl Expected<'_> {
    fn of(&self, claims: &Map<String, Value>) -> Result<(), Refused> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let issuer = text("iss").unwrap_or_default();
        if issuer != self.issuer {
            return Err(Refused::Issuer(issuer.chars().take(200).collect()));
        }
        let audience = texts(claims.get("aud"));
        let is_party = claims.get("azp").map_or(audience.len() == 1, |party| party == self.client_id);
        if !audience.contains(&self.client_id) || !is_party {
            return Err(Refused::Audience);
        }
        let second = |name: &str| claims.get(name).and_then(Value::as_f64);
        // A second since 1970 is exact in an f64.
        let now = self.now_s as f64;
        let skew = CLOCK_SKEW_S as f64;
        let has_begun = |name: &str| second(name).is_none_or(|begin| begin <= now + skew);
        let is_due = second("exp").is_some_and(|end| now < end + skew) && second("iat").is_some();
        if !(is_due && has_begun("iat") && has_begun("nbf")) {
            return Err(Refused::Time);
        }
        if text("nonce") != Some(self.nonce) {
            return Err(Refused::Nonce);
        }
        let subject = text("sub").unwrap_or_default();
        if subject.is_empty() || subject.len() > SUBJECT_BYTES_MAX || subject.chars().any(char::is_control) {
            return Err(Refused::Subject);
        }
        Ok(())
    }
}

/// The texts of a claim that is one text or a list of them.
pub fn texts(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use openssl::{pkey::Private, sign::Signer};
    use serde_json::json;

    use super::*;

    const NOW_S: u64 = 1_800_000_000;
    const EXPECTED: Expected<'_> =
        Expected { issuer: "https://id.example", client_id: "doseline", nonce: "n-1", now_s: NOW_S };

    fn coded(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    struct Provider {
        rsa: PKey<Private>,
        ec: EcKey<Private>,
    }

    impl Provider {
        fn new() -> Self {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            Self { rsa: PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap(), ec: EcKey::generate(&group).unwrap() }
        }

        fn keys(&self) -> Keys {
            let rsa = self.rsa.rsa().unwrap();
            let (mut x, mut y) = (BigNum::new().unwrap(), BigNum::new().unwrap());
            let mut context = openssl::bn::BigNumContext::new().unwrap();
            self.ec.public_key().affine_coordinates(self.ec.group(), &mut x, &mut y, &mut context).unwrap();
            let coordinate = |number: &BigNum| coded(&number.to_vec_padded(32).unwrap());
            let keys = json!({ "keys": [
                { "kty": "RSA", "kid": "r", "use": "sig", "n": coded(&rsa.n().to_vec()), "e": coded(&rsa.e().to_vec()) },
                { "kty": "EC", "kid": "e", "crv": "P-256", "x": coordinate(&x), "y": coordinate(&y) },
                { "kty": "OKP", "kid": "o", "crv": "Ed25519", "x": "AAAA" },
            ]});
            serde_json::from_value(keys).unwrap()
        }

        fn token(&self, header: &Value, claims: &Value) -> String {
            let signed = format!("{}.{}", coded(header.to_string().as_bytes()), coded(claims.to_string().as_bytes()));
            let signature = match header["alg"].as_str().unwrap() {
                "ES256" => {
                    let signature = EcdsaSig::sign(&openssl::sha::sha256(signed.as_bytes()), &self.ec).unwrap();
                    [signature.r().to_vec_padded(32).unwrap(), signature.s().to_vec_padded(32).unwrap()].concat()
                }
                "none" => Vec::new(),
                "HS256" => {
                    let secret = PKey::hmac(&self.rsa.public_key_to_pem().unwrap()).unwrap();
                    Signer::new(MessageDigest::sha256(), &secret)
                        .unwrap()
                        .sign_oneshot_to_vec(signed.as_bytes())
                        .unwrap()
                }
                name => {
                    let mut signer = Signer::new(MessageDigest::sha256(), &self.rsa).unwrap();
                    if name == "PS256" {
                        signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
                    }
                    signer.sign_oneshot_to_vec(signed.as_bytes()).unwrap()
                }
            };
            format!("{signed}.{}", coded(&signature))
        }
    }

    fn claims() -> Value {
        json!({ "iss": "https://id.example", "aud": "doseline", "sub": "u-1", "nonce": "n-1",
                "iat": NOW_S - 1, "exp": NOW_S + 300 })
    }

    #[test]
    fn a_token_that_one_of_the_keys_signed_is_taken() {
        let provider = Provider::new();
        for header in [
            json!({ "alg": "RS256", "kid": "r" }),
            json!({ "alg": "PS256", "kid": "r" }),
            json!({ "alg": "ES256", "kid": "e", "typ": "JWT" }),
            json!({ "alg": "ES256" }),
        ] {
            let token = provider.token(&header, &claims());
            assert_eq!(check(&token, &provider.keys(), &EXPECTED).unwrap()["sub"], "u-1", "{header}");
        }
        let mut several = claims();
        several["aud"] = json!(["other", "doseline"]);
        several["azp"] = json!("doseline");
        check(&provider.token(&json!({ "alg": "RS256", "kid": "r" }), &several), &provider.keys(), &EXPECTED).unwrap();
    }

    #[test]
    fn a_token_with_a_wrong_signature_is_refused() {
        let (provider, other) = (Provider::new(), Provider::new());
        let refused = |token: &str| check(token, &provider.keys(), &EXPECTED).unwrap_err();
        let rs256 = json!({ "alg": "RS256", "kid": "r" });
        for header in [rs256.clone(), json!({ "alg": "PS256", "kid": "r" }), json!({ "alg": "ES256", "kid": "e" })] {
            assert_eq!(refused(&other.token(&header, &claims())), Refused::Signature, "{header}");
            let token = provider.token(&header, &claims());
            let (signed, signature) = token.rsplit_once('.').unwrap();
            assert_eq!(refused(&format!("{signed}.")), Refused::Signature);
            let forged = coded(claims().to_string().replace("u-1", "u-2").as_bytes());
            let parts = format!("{}.{forged}.{signature}", signed.split_once('.').unwrap().0);
            assert_eq!(refused(&parts), Refused::Signature, "{header}");
        }
        for name in ["none", "HS256", "RS512"] {
            let header = json!({ "alg": name, "kid": "r" });
            assert_eq!(refused(&provider.token(&header, &claims())), Refused::Algorithm(name.to_owned()));
        }
        for header in [
            json!({ "alg": "RS256", "kid": "unknown" }),
            json!({ "alg": "RS256", "kid": "e" }),
            json!({ "alg": "ES256", "kid": "r" }),
        ] {
            assert_eq!(refused(&provider.token(&header, &claims())), Refused::UnknownKey, "{header}");
        }
        let critical = json!({ "alg": "RS256", "kid": "r", "crit": ["exp"] });
        assert_eq!(refused(&provider.token(&critical, &claims())), Refused::Form);
        for text in ["", "a", "a.b", "a.b.c", "....", &"x.".repeat(BYTES_MAX), "e30.e30.e30"] {
            assert_eq!(refused(text), Refused::Form, "{text:.20}");
        }
        let short = Provider { rsa: PKey::from_rsa(Rsa::generate(1_024).unwrap()).unwrap(), ..Provider::new() };
        let token = short.token(&rs256, &claims());
        assert_eq!(check(&token, &short.keys(), &EXPECTED).unwrap_err(), Refused::Signature, "the key is too short");
    }

    #[test]
    fn a_token_that_says_anything_else_is_refused() {
        let provider = Provider::new();
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            check(&provider.token(&json!({ "alg": "RS256", "kid": "r" }), &claims), &provider.keys(), &EXPECTED)
        };
        for issuer in [json!("https://id.example/"), json!("https://evil.example"), Value::Null] {
            assert!(matches!(with("iss", issuer), Err(Refused::Issuer(_))));
        }
        for audience in [json!("other"), json!(["other", "doseline"]), json!([]), Value::Null, json!("doseline2")] {
            assert_eq!(with("aud", audience), Err(Refused::Audience));
        }
        assert_eq!(with("azp", json!("other")), Err(Refused::Audience));
        for end in [json!(NOW_S - CLOCK_SKEW_S), json!(0), Value::Null, json!("2099")] {
            assert_eq!(with("exp", end), Err(Refused::Time));
        }
        with("exp", json!(NOW_S - CLOCK_SKEW_S + 1)).unwrap();
        for begin in [json!(NOW_S + CLOCK_SKEW_S + 1), Value::Null] {
            assert_eq!(with("iat", begin), Err(Refused::Time));
        }
        with("iat", json!(NOW_S + CLOCK_SKEW_S)).unwrap();
        assert_eq!(with("nbf", json!(NOW_S + CLOCK_SKEW_S + 1)), Err(Refused::Time));
        for nonce in [json!("n-2"), Value::Null, json!("")] {
            assert_eq!(with("nonce", nonce), Err(Refused::Nonce));
        }
        for subject in [Value::Null, json!(""), json!("x".repeat(256)), json!("a\nb"), json!(7)] {
            assert_eq!(with("sub", subject), Err(Refused::Subject));
        }
    }
}

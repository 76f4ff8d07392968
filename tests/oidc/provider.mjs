// An OpenID provider for the tests: `node provider.mjs PORT CALLBACK,... SECRET`. It says "ready" when it
// listens, and takes new keys at SIGHUP. The names of accounts say what their ID tokens are like:
// `viewer` ... have claims; those with a colon, such as `expired:viewer`, are changed on their way.
import { createSign, createHmac, generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const [port, callbacks, secret] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;

const people = {
  viewer: { doseline_role: 'viewer', doseline_tenants: ['acme'] },
  operator: { doseline_role: ['staff', 'operator'], doseline_tenants: ['acme', 'beta'] },
  maker: { doseline_role: 'manufacturer', doseline_manufacturer: 'A maker' },
  admin: { doseline_role: 'admin' },
  nobody: {},
  owner: { doseline_role: 'owner' },
  homeless: { doseline_role: 'viewer' },
  two: { doseline_role: ['viewer', 'admin'], doseline_tenants: 'acme' },
};

const coded = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
const decoded = (part) => JSON.parse(Buffer.from(part, 'base64url'));

// Changes an ID token, and signs it again with a key of the provider's name.
const changes = {
  expired: (header, claims) => { claims.iat -= 7200; claims.exp = claims.iat + 300; },
  future: (header, claims) => { claims.iat += 3600; claims.exp = claims.iat + 300; },
  audience: (header, claims) => { claims.aud = 'another-client'; },
  issuer: (header, claims) => { claims.iss = 'https://another.example'; },
  nonce: (header, claims) => { claims.nonce = 'another'; },
  none: (header) => { header.alg = 'none'; },
  secret: (header) => { header.alg = 'HS256'; },
  stranger: () => {},
};

function make() {
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const stranger = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
  const jwk = { ...pair.privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'doseline',
      client_secret: secret,
      redirect_uris: callbacks.split(","),
      response_types: ['code'],
      grant_types: ['authorization_code'],
    }],
    jwks: { keys: [jwk] },
    cookies: { keys: ['a key of the tests'] },
    conformIdTokenClaims: false,
    claims: { openid: ['sub', 'doseline_role', 'doseline_tenants', 'doseline_manufacturer'] },
    findAccount: (context, id) => ({
      accountId: id,
      claims: () => ({ sub: id, ...people[id.split(':').pop()] }),
    }),
  });
  provider.use(async (context, next) => {
    await next();
    const token = context.path === '/token' && context.body?.id_token;
    if (!token) return;
    const [header, claims] = token.split('.').slice(0, 2).map(decoded);
    const change = changes[claims.sub.split(':')[0]];
    if (!change) return;
    change(header, claims);
    const signed = `${coded(header)}.${coded(claims)}`;
    const key = claims.sub.startsWith('stranger') ? stranger : pair.privateKey;
    const signature = {
      none: () => '',
      HS256: () => createHmac('sha256', pair.publicKey.export({ type: 'spki', format: 'pem' })).update(signed).digest('base64url'),
      RS256: () => createSign('sha256').update(signed).sign(key, 'base64url'),
    }[header.alg]();
    context.body = { ...context.body, id_token: `${signed}.${signature}` };
  });
  return provider.callback();
}

let answer = make();
process.on('SIGHUP', () => { answer = make(); console.log('new keys'); });
createServer((request, response) => answer(request, response)).listen(Number(port), '127.0.0.1', () => console.log('ready'));

'use strict';
// An example of a login page for XCALLY Motion. Active Directory checks the passwords, and each user has one seat. The
// application stores no password and does not use LDAP. Read README.md first.

const crypto = require('crypto');
const path = require('path');
const express = require('express');
const session = require('express-session');
const { login, changePassword } = require('motion-ad-client');
const { watch, sit } = require('./seats');
const { languageOf, textsOf, explain, explainChange } = require('./texts');

const EXPIRED = ['password_expired', 'must_change'];
const UNAVAILABLE = ['unavailable', 'misconfigured', 'session_store', 'too_many_groups'];

// Logged-in users, by the id of the browser's session: the seat, the texts in the user's language, and the pages that wait
// for the seat's end.
const inside = new Map();

const app = express();
app.disable('x-powered-by');
app.use(
  session({
    // Sessions end with this process, and so do its seats: the broker ends the seats of a process that is gone.
    secret: crypto.randomBytes(32).toString('hex'),
    resave: false,
    saveUninitialized: false,
    // Behind a proxy with TLS, add secure: true and app.set('trust proxy', 1).
    cookie: { httpOnly: true, sameSite: 'strict' },
  }),
);
app.use(express.json({ limit: '8kb' }));
app.use(express.static(path.join(__dirname, 'public')));

const say = (response, status, outcome, text = '') => response.status(status).json({ outcome, text });
const has = ({ body }, ...fields) => fields.every((field) => body?.[field] && typeof body[field] === 'string');
const originOf = ({ body, ip }) => ({ service: 'motion', user: body.username.trim().toLowerCase(), rhost: ip });

// Answers a login without access. The page offers a password change for the outcome "expired".
function reject(response, answer) {
  const status = UNAVAILABLE.includes(answer.outcome) ? 503 : 401;
  const outcome = EXPIRED.includes(answer.outcome) ? 'expired' : answer.outcome;
  say(response, status, outcome, explain(response.req, answer));
}

async function enter(request, response, password) {
  const origin = originOf(request);
  const answer = await login({ ...origin, password, openSession: true });
  if (!answer.ok) return reject(response, answer);
  const seat = answer.session;
  if (!seat.id) {
    // The register could not take the session, so this application would not learn of its end.
    await seat.close();
    return reject(response, { outcome: 'session_store' });
  }

  leave(request); // The user who was logged in before in the same browser.
  // A new id, so that the old one gives no access (session fixation).
  await new Promise((resolve, reject) => request.session.regenerate((e) => (e ? reject(e) : resolve())));
  request.session.user = origin.user;
  const { sessionID: id, sessionStore } = request;
  const place = { seat, texts: textsOf(request), pages: new Set() };
  inside.set(id, place);
  say(response, 200, 'in');
  sit(seat.id, (reason) => {
    if (inside.get(id) !== place) return; // The user has logged out.
    inside.delete(id);
    sessionStore.destroy(id);
    const text = place.texts.ends[reason] ?? place.texts.ends.other;
    for (const page of place.pages) page.end(`data: ${JSON.stringify({ outcome: 'ended', text })}\n\n`);
  });
}

function leave({ sessionID }) {
  const place = inside.get(sessionID);
  if (!place) return;
  inside.delete(sessionID);
  place.seat.close().catch(console.error);
  for (const page of place.pages) page.end();
}

// All routes except the login require a logged-in user.
function required(request, response, next) {
  if (inside.has(request.sessionID)) return next();
  say(response, 401, 'ended');
}

// The texts of the page itself.
app.get('/texts', (request, response) => {
  response.json({ language: languageOf(request), page: textsOf(request).page });
});

app.post('/login', async (request, response) => {
  if (!has(request, 'username', 'password')) return say(response, 401, 'wrong_password', textsOf(request).typeBoth);
  await enter(request, response, request.body.password);
});

// Changes the password, and logs in with the new one.
app.post('/password', async (request, response) => {
  const again = (text) => say(response, 401, 'expired', text);
  if (!has(request, 'username', 'password', 'newPassword')) return again(textsOf(request).typePasswords);
  const { password, newPassword } = request.body;
  const answer = await changePassword({ ...originOf(request), password, newPassword });
  if (!answer.ok) return again(explainChange(request, answer));
  await enter(request, response, newPassword);
});

app.get('/me', required, (request, response) => {
  response.json({ user: request.session.user });
});

// Notifies the page at once when its seat ends (server-sent events; XCALLY would use its existing socket).
app.get('/seat', required, (request, response) => {
  const { pages } = inside.get(request.sessionID);
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  response.flushHeaders();
  pages.add(response);
  response.on('close', () => pages.delete(response));
});

app.post('/logout', required, (request, response) => {
  leave(request);
  request.session.destroy(() => say(response, 200, 'ended', textsOf(request).loggedOut));
});

// Logs nothing of a malformed request, because it may contain a password.
app.use((error, request, response, next) => {
  if (response.headersSent) return next(error);
  if (!(error.status < 500)) console.error(error.stack);
  say(response, error.status ?? 500, 'unavailable', textsOf(request).outcomes.misconfigured);
});

watch(); // If it fails, the process ends, and systemd starts it again.
module.exports = app.listen(Number(process.env.PORT ?? 3000), process.env.ADDRESS ?? '127.0.0.1');

'use strict';
// An example of a login page for XCALLY Motion. Active Directory checks the passwords, and each user has one seat. The
// application stores no password and does not use LDAP. Read README.md first.

const crypto = require('crypto');
const path = require('path');
const express = require('express');
const session = require('express-session');
const { logIn, UNAVAILABLE } = require('./pam');
const { changePassword } = require('./passwords');
const { TEXTS, languageOf, text } = require('./texts');
const { watch, nextSeat, leave, oneAtATime, TOLD } = require('./seats');

const STATUS = { in: 200, wrong: 401, locked: 401, expired: 401, refused: 403, unavailable: 503, ended: 401 };
// The text for each reason why a seat ended.
const ENDED = { replaced: 'replaced', refused: 'sessionRefused', kicked: 'kicked' };

// Logged-in users, by the id of the browser's session: the seat, its language, and the pages that wait for its end.
const seated = new Map();

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

// Answers with a text of texts.js.
function say(response, outcome, name) {
  tell(response, outcome, name ? text(languageOf(response.req), name) : '');
}

function tell(response, outcome, text) {
  response.status(STATUS[outcome]).json({ outcome, text });
}

// Returns true if PAM can get the text unchanged. The bindings cut it at a NUL: "right\0" would count as "right".
function isText(value, longest) {
  return typeof value === 'string' && value.length > 0 && value.length <= longest && !value.includes('\0');
}

/** Returns the user's name in one spelling for all logins, or null if it is not a possible name. */
function userName(value) {
  return isText(value, 256) ? value.trim().toLowerCase() : null;
}

async function enter(request, response, user, password) {
  const login = oneAtATime(user, async () => {
    const stop = new AbortController();
    const taken = nextSeat(user, stop.signal).catch(() => null);
    const answer = await logIn(user, password, request.ip);
    if (answer[0] !== 'in') {
      stop.abort();
      return answer;
    }
    const late = setTimeout(() => stop.abort(), TOLD);
    const seat = await taken;
    clearTimeout(late);
    // Without a seat, the application would get no event when it ends.
    return seat ? ['in', null, seat] : UNAVAILABLE;
  });
  const [outcome, name, seat] = (await login) ?? UNAVAILABLE;
  if (!seat) return say(response, outcome, name);

  forget(request); // The user who was logged in before in the same browser.
  // A new id, so that the old one gives no access (session fixation).
  await new Promise((resolve, reject) => request.session.regenerate((e) => (e ? reject(e) : resolve())));
  const id = request.sessionID;
  request.session.user = user;
  seated.set(id, { seat, language: languageOf(request), pages: new Set() });
  const thrownOut = () => throwOut(id, seat, request.sessionStore);
  if (seat.ended) thrownOut(); // Another login has already taken it.
  else seat.once('ended', thrownOut);
  say(response, 'in');
}

function throwOut(id, seat, store) {
  const place = seated.get(id);
  if (place?.seat !== seat) return;
  seated.delete(id);
  store.destroy(id);
  const reason = text(place.language, ENDED[seat.ended] ?? 'ended');
  for (const page of place.pages) page.end(`data: ${JSON.stringify({ outcome: 'ended', text: reason })}\n\n`);
}

function forget(request) {
  const place = seated.get(request.sessionID);
  if (!place) return;
  seated.delete(request.sessionID);
  leave(place.seat.id);
  for (const page of place.pages) page.end();
}

// All routes except the login require a logged-in user.
function inside(request, response, next) {
  if (seated.has(request.sessionID)) return next();
  say(response, 'ended');
}

// The texts of the page itself.
app.get('/texts', (request, response) => {
  const language = languageOf(request);
  response.json({ language, page: TEXTS[language].page });
});

app.post('/login', async (request, response) => {
  const { password } = request.body ?? {};
  const user = userName(request.body?.username);
  if (!user || !isText(password, 1024)) return say(response, 'wrong', 'typeBoth');
  await enter(request, response, user, password);
});

// Changes the password, and logs in with the new one.
app.post('/password', async (request, response) => {
  const { password, newPassword } = request.body ?? {};
  const user = userName(request.body?.username);
  const isLine = (text) => isText(text, 1024) && !/[\r\n]/.test(text);
  if (!user || !isLine(password) || !isLine(newPassword)) return say(response, 'expired', 'typePasswords');
  const [changed, reason] = await changePassword(user, password, newPassword, languageOf(request));
  if (!changed) return tell(response, 'expired', reason);
  await enter(request, response, user, newPassword);
});

app.get('/me', inside, (request, response) => {
  response.json({ user: request.session.user });
});

// Notifies the page at once when its seat ends (server-sent events; XCALLY would use its existing socket).
app.get('/seat', inside, (request, response) => {
  const { pages } = seated.get(request.sessionID);
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  response.flushHeaders();
  pages.add(response);
  response.on('close', () => pages.delete(response));
});

app.post('/logout', inside, (request, response) => {
  forget(request);
  request.session.destroy(() => response.json({ outcome: 'ended', text: text(languageOf(request), 'loggedOut') }));
});

// Logs nothing of a malformed request, because it may contain a password.
app.use((error, request, response, next) => {
  if (response.headersSent) return next(error);
  if (!(error.status < 500)) console.error(error.stack);
  response.status(error.status ?? 500).json({ outcome: 'unavailable', text: text(languageOf(request), UNAVAILABLE[1]) });
});

watch();
app.listen(Number(process.env.PORT ?? 3000), process.env.ADDRESS ?? '127.0.0.1');

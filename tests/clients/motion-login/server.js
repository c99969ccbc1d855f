'use strict';
// An example of a login page for XCALLY Motion. Active Directory checks the passwords, and each user has one seat. The
// application stores no password and does not use LDAP. Read README.md first.

const crypto = require('crypto');
const path = require('path');
const express = require('express');
const session = require('express-session');
const { logIn, UNAVAILABLE } = require('./pam');
const { changePassword } = require('./passwords');
const { watch, nextSeat, leave, oneAtATime, TOLD } = require('./seats');

const STATUS = { in: 200, wrong: 401, locked: 401, expired: 401, refused: 403, unavailable: 503, ended: 401 };
const ENDED = {
  replaced: 'You have logged in somewhere else, so you were logged out here.',
  refused: 'Your account may no longer be logged in. Ask your administrator.',
  kicked: 'Your administrator has logged you out.',
};

// Logged-in users: the seat by the id of the browser's session, and the pages that wait for its end.
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

function say(response, outcome, text) {
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
    return seat ? [...answer, seat] : UNAVAILABLE;
  });
  const [outcome, text, seat] = (await login) ?? UNAVAILABLE;
  if (!seat) return say(response, outcome, text);

  forget(request); // The user who was logged in before in the same browser.
  // A new id, so that the old one gives no access (session fixation).
  await new Promise((resolve, reject) => request.session.regenerate((e) => (e ? reject(e) : resolve())));
  const id = request.sessionID;
  request.session.user = user;
  seated.set(id, { seat, pages: new Set() });
  const thrownOut = () => throwOut(id, seat, request.sessionStore);
  if (seat.ended) thrownOut(); // Another login has already taken it.
  else seat.once('ended', thrownOut);
  say(response, 'in', '');
}

function throwOut(id, seat, store) {
  const place = seated.get(id);
  if (place?.seat !== seat) return;
  seated.delete(id);
  store.destroy(id);
  const text = ENDED[seat.ended] ?? 'Your session has ended. Log in again.';
  for (const page of place.pages) page.end(`data: ${JSON.stringify({ outcome: 'ended', text })}\n\n`);
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
  say(response, 'ended', '');
}

app.post('/login', async (request, response) => {
  const { password } = request.body ?? {};
  const user = userName(request.body?.username);
  if (!user || !isText(password, 1024)) return say(response, 'wrong', 'Type your user name and your password.');
  await enter(request, response, user, password);
});

// Changes the password, and logs in with the new one.
app.post('/password', async (request, response) => {
  const { password, newPassword } = request.body ?? {};
  const user = userName(request.body?.username);
  const isLine = (text) => isText(text, 1024) && !/[\r\n]/.test(text);
  if (!user || !isLine(password) || !isLine(newPassword)) return say(response, 'expired', 'Type both passwords.');
  const [changed, text] = await changePassword(user, password, newPassword);
  if (!changed) return say(response, 'expired', text);
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
  request.session.destroy(() => response.json({ outcome: 'ended', text: 'You have logged out.' }));
});

// Logs nothing of a malformed request, because it may contain a password.
app.use((error, _request, response, next) => {
  if (response.headersSent) return next(error);
  if (!(error.status < 500)) console.error(error.stack);
  response.status(error.status ?? 500).json({ outcome: 'unavailable', text: UNAVAILABLE[1] });
});

watch();
app.listen(Number(process.env.PORT ?? 3000), process.env.ADDRESS ?? '127.0.0.1');

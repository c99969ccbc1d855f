'use strict';
// One seat per person. The register is motion-ad's: /etc/pam.d/motion-login has session=auth, so that a login that
// succeeds takes a seat, and the one that the person had before ends. This is how the application learns of both.
//
// One child process for the whole application prints a line of JSON for each event (man motion-ad-sessions-watch). It
// waits for the broker by itself; if it ends, another one goes on after the last line, and nothing is missed.

const { EventEmitter, once } = require('events');
const { execFile, spawn } = require('child_process');
const os = require('os');
const readline = require('readline');

// How long after PAM's answer the event may come: it is written before PAM answers.
const TOLD = 5000;

const seats = new Map(); // by the id of the session: an EventEmitter that emits 'ended' once
const opened = new EventEmitter(); // emits "of USER" with the seat that was taken just now
let cursor;

function watch() {
  const after = cursor === undefined ? [] : ['--after', cursor];
  const child = spawn('motion-ad', ['sessions', 'watch', ...after], { stdio: ['ignore', 'pipe', 'inherit'] });
  readline.createInterface({ input: child.stdout }).on('line', (line) => hear(JSON.parse(line)));
  child.on('error', console.error);
  child.on('close', () => setTimeout(watch, 1000));
}

function hear({ event, cursor: here, session }) {
  cursor = here;
  if (event === 'gap') compare();
  if (event === 'opened' && isOurs(session)) {
    const seat = Object.assign(new EventEmitter(), { id: session.id, ended: null });
    seats.set(session.id, seat);
    // One that nobody waits for any more is left at once.
    if (!opened.emit(`of ${session.user}`, seat)) leave(session.id);
  }
  if (event === 'ended') end(session.id, session.ended.reason);
}

// Several servers may share one register.
function isOurs({ host, pid }) {
  return pid === process.pid && host === os.hostname();
}

function end(id, reason) {
  const seat = seats.get(id);
  if (!seat) return;
  seats.delete(id);
  seat.ended = reason;
  seat.emit('ended');
}

// Events were lost: whose seat is not in the list any more has lost it.
function compare() {
  const known = [...seats.keys()];
  execFile('motion-ad', ['sessions', 'list', '--json'], (error, printed) => {
    if (error) return setTimeout(compare, 1000);
    const open = new Set(JSON.parse(printed).map((session) => session.id));
    known.filter((id) => !open.has(id)).forEach((id) => end(id, 'replaced'));
  });
}

/**
 * Waits for the seat that the next login of this user takes. Begin before PAM is asked, and let only one login of a
 * user be on its way (see oneAtATime): then the next seat is that login's. Stop it by the AbortController's signal.
 */
async function nextSeat(user, signal) {
  const [seat] = await once(opened, `of ${user}`, { signal });
  return seat;
}

/** The person logs out: nobody is to be told. */
function leave(id) {
  execFile('motion-ad', ['sessions', 'end', id], () => {});
}

// The logins of one user stand in a line, which has an end: nobody else can keep a person out for long.
const LINE = 20;
const lines = new Map();

/** Does the work when that of the same user before it is done; null where too much of it is waiting. */
function oneAtATime(user, work) {
  const line = lines.get(user) ?? { end: Promise.resolve(), length: 0 };
  if (line.length >= LINE) return null;
  lines.set(user, line);
  line.length += 1;
  const mine = line.end.then(work);
  line.end = mine
    .catch(() => {})
    .then(() => {
      line.length -= 1;
      if (line.length === 0) lines.delete(user);
    });
  return mine;
}

module.exports = { watch, nextSeat, leave, oneAtATime, TOLD };

'use strict';
// One seat per user. motion-ad keeps the register: /etc/pam.d/motion-login has session=auth, so that a successful login
// takes a seat, and the user's earlier seat ends. This file receives both events.
//
// One child process for the whole application prints a line of JSON for each event (man motion-ad-sessions-watch). It
// waits for the broker by itself. If it ends, another one continues after the last line, so that no event is lost.

const { EventEmitter, once } = require('events');
const { execFile, spawn } = require('child_process');
const os = require('os');
const readline = require('readline');

// Maximum wait for the event after PAM's answer, in milliseconds. The event is written before PAM answers.
const TOLD = 5000;

const seats = new Map(); // by the id of the session: an EventEmitter that emits 'ended' once
const opened = new EventEmitter(); // emits "of USER" with a seat that was just taken
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
    // No login waits for this seat any more, so give it up at once.
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

// Events were lost: a seat that is no longer in the list has ended.
function compare() {
  const known = [...seats.keys()];
  execFile('motion-ad', ['sessions', 'list', '--json'], (error, printed) => {
    if (error) return setTimeout(compare, 1000);
    const open = new Set(JSON.parse(printed).map((session) => session.id));
    known.filter((id) => !open.has(id)).forEach((id) => end(id, 'replaced'));
  });
}

/**
 * Waits for the seat that the next login of this user takes. Call it before PAM, and run only one login of a user at a
 * time (see oneAtATime), so that the next seat belongs to that login. The AbortController's signal stops the wait.
 */
async function nextSeat(user, signal) {
  const [seat] = await once(opened, `of ${user}`, { signal });
  return seat;
}

/** Ends the seat of a user who logs out. Needs no notice. */
function leave(id) {
  execFile('motion-ad', ['sessions', 'end', id], () => {});
}

// Maximum number of queued logins of one user. The bound keeps other clients from blocking the user for long.
const LINE = 20;
const lines = new Map();

/** Runs the work after earlier work for the same user. Returns null if too much is waiting. */
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

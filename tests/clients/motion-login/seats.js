'use strict';
// One seat per user: the latest login takes it, and this file reports the end of the earlier one. A seat is a session in
// motion-ad's register.

const { sessions } = require('motion-ad-client');

const seated = new Map(); // by the id of the session: what to do when it ends
const ended = new Map(); // the latest sessions that ended, with the reason: the event can arrive before the login's answer
const REMEMBERED = 1000;

function end(id, reason) {
  const leave = seated.get(id);
  seated.delete(id);
  ended.set(id, reason);
  if (ended.size > REMEMBERED) ended.delete(ended.keys().next().value);
  leave?.(reason);
}

/** Receives the end of every seat, as long as this process lives. */
async function watch() {
  for await (const { event, session } of sessions.watch()) {
    if (event === 'ended') end(session.id, session.ended.reason);
    // Earlier events are not reported: a seat that is no longer in the list has ended.
    if (event === 'ready' || event === 'gap') await compare([...seated.keys()]);
  }
}

async function compare(known) {
  if (known.length === 0) return;
  const open = new Set((await sessions.list()).map(({ id }) => id));
  known.filter((id) => !open.has(id)).forEach((id) => end(id, 'replaced'));
}

/** Calls `leave` with the reason when the session ends, or at once if it has ended already. */
function sit(id, leave) {
  seated.set(id, leave);
  if (ended.has(id)) end(id, ended.get(id));
}

module.exports = { watch, sit };

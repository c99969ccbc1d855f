'use strict';
// Logs users in by PAM. README.md explains it, index.d.ts has the types.

const { createClient } = require('./lib/client');
const { watch, list } = require('./lib/sessions');
const { OUTCOMES } = require('./lib/answer');
const native = require('./motion-ad-client.node');

const { login, changePassword, openSession } = createClient(native);
const sessions = { watch, list };

/** Sets how many calls of PAM run at once (16), and how many wait for them (256), in the whole process. */
function configure({ threads = 16, queue = 256 } = {}) {
  for (const [name, value, least] of [['threads', threads, 1], ['queue', queue, 0]]) {
    if (!Number.isInteger(value) || value < least || value > 4096) {
      throw new RangeError(`${name} must be an integer from ${least} to 4096`);
    }
  }
  native.configure(threads, queue);
}

module.exports = { login, changePassword, openSession, configure, sessions, OUTCOMES };

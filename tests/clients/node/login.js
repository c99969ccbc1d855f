'use strict';
// Logs in with a PAM library for Node: `login.js node-linux-pam | authenticate-pam`.
//
// Each line of JSON on standard input is a login: id, service, user, password. The answer is a line of JSON with the id
// and the text of libpam.

const readline = require('readline');

const library = require(process.argv[2]);
const REMOTE = '192.0.2.7';

const ways = {
  'node-linux-pam': ({ user, password, service }, done) =>
    library.pamAuthenticate({ username: user, password, serviceName: service, remoteHost: REMOTE }, done),
  'authenticate-pam': ({ user, password, service }, done) =>
    library.authenticate(user, password, done, { serviceName: service, remoteHost: REMOTE }),
};
const logIn = ways[process.argv[2]];

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const login = JSON.parse(line);
  logIn(login, (error) => {
    const said = error ? String(error.message || error) : 'Success';
    console.log(JSON.stringify({ id: login.id, said }));
  });
});

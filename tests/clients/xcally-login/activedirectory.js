'use strict';
// A login by the library activedirectory: one bind as the username with the domain behind it.

const ActiveDirectory = require('activedirectory');

module.exports = function activedirectory({ URL, BASE_DN, ADMIN, PASSWORD, DOMAIN }) {
  const directory = new ActiveDirectory({ url: URL, baseDN: BASE_DN, username: ADMIN, password: PASSWORD });
  return ({ body: { username, password } }) =>
    new Promise((resolve, reject) => {
      directory.authenticate(`${username}@${DOMAIN}`, password, (error, isIn) =>
        isIn ? resolve() : reject(error ?? new Error('not authenticated')),
      );
    });
};

'use strict';
// A login by the library passport-ldapauth: a search by the admin, and a bind as the distinguished name that it finds.

const passport = require('passport');
const Strategy = require('passport-ldapauth');

module.exports = function ldapauth({ URL, BASE_DN, ADMIN, PASSWORD, DOMAIN }) {
  const server = {
    url: URL,
    bindDN: ADMIN,
    bindCredentials: PASSWORD,
    searchBase: BASE_DN,
    searchFilter: `(userPrincipalName={{username}}@${DOMAIN})`,
  };
  passport.use(new Strategy({ server }));
  return (request, response) =>
    new Promise((resolve, reject) => {
      const answered = (error, user, info) => (user ? resolve() : reject(error ?? new Error(info.message)));
      passport.authenticate('ldapauth', { session: false }, answered)(request, response, reject);
    });
};

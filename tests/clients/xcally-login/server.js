'use strict';
// A service that logs in as XCALLY's own Active Directory integration does: by LDAP, configured by the six
// XC_ACTIVEDIRECTORY_ properties of .env and nothing else. Read README.md first.
//
// There is a login page for each library: /activedirectory/ and /passport-ldapauth/.

const crypto = require('crypto');
const path = require('path');
const express = require('express');
const session = require('express-session');
const properties = require('./properties');

const LIBRARIES = ['activedirectory', 'passport-ldapauth'];
const WRONG = 'The user name or the password is wrong.';

const app = express();
app.disable('x-powered-by');
app.use(
  session({
    secret: crypto.randomBytes(32).toString('hex'),
    resave: false,
    saveUninitialized: false,
    cookie: { httpOnly: true, sameSite: 'strict' },
  }),
);
app.use(express.json({ limit: '8kb' }));

for (const library of LIBRARIES) {
  const logIn = require(`./${library}`)(properties());
  const page = express.Router();
  page.use(express.static(path.join(__dirname, 'public')));
  page.post('/login', async (request, response) => {
    const error = await logIn(request, response).then(() => null, (error) => error);
    if (error) {
      const text = String(error.message || error.description || error);
      console.log(`${library}: ${text}`);
      return response.status(401).json({ text: WRONG });
    }
    // A new id, so that the old one gives no access (session fixation).
    await new Promise((resolve, reject) => request.session.regenerate((e) => (e ? reject(e) : resolve())));
    request.session.user = request.body.username;
    response.json({ user: request.session.user });
  });
  page.get('/me', (request, response) => {
    const { user } = request.session;
    response.status(user ? 200 : 401).json({ user });
  });
  page.post('/logout', (request, response) => {
    request.session.destroy(() => response.json({}));
  });
  app.use(`/${library}`, page);
}

app.listen(3000, '127.0.0.1');

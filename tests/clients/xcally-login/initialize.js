'use strict';
// `npm run initialize` as the user that owns .env: checks that the service can read its properties.

require('./properties')();
console.log('The environment is initialized.');

'use strict';
// The texts of the application, in the languages of motion-ad. The browser's Accept-Language chooses the language.
// A text reveals no more in one language than in another, and no more than Active Directory reveals after the same password.
//
// `outcomes` has the texts by the outcome that motion-ad-client reports, `ends` those by the reason why a seat ended, and
// `page` those of public/index.html.

const TEXTS = {
  en: {
    outcomes: {
      wrong_password: 'The user name or the password is wrong.',
      account_restriction: 'Your account may not log in. Ask your administrator.',
      misconfigured: 'Your request could not be completed. Try again in a minute, or ask your administrator.',
      logon_hours: 'Your account may not log in at this time.',
      workstation: 'Your account may not log in from this computer.',
      password_expired: 'Your password has expired and must be changed.',
      must_change: 'Your password must be changed before you can log in.',
      disabled: 'Your account is disabled.',
      account_expired: 'Your account has expired.',
      locked_out: 'Your account is locked. Try again later or ask your administrator.',
      denied: 'Your account may not use this service.',
      password_refused: 'Your new password was not accepted.',
      change_forbidden: 'You may not change your password.',
      change_unknown: 'It is not certain whether your password was changed. Try to log in with the new one.',
      session_denied: 'You are already logged in elsewhere.',
      session_store: 'Your session cannot be registered. Try again in a moment.',
      unavailable: 'The login service cannot reach Active Directory. Try again in a moment.',
    },
    ends: {
      replaced: 'You have logged in somewhere else, so you were logged out here.',
      refused: 'Your account may no longer be logged in. Ask your administrator.',
      kicked: 'Your administrator has logged you out.',
      other: 'Your session has ended. Log in again.',
    },
    typeBoth: 'Type your user name and your password.',
    typePasswords: 'Type both passwords.',
    loggedOut: 'You have logged out.',
    page: {
      user: 'User name',
      password: 'Password',
      newPassword: 'New password',
      again: 'New password again',
      logIn: 'Log in',
      hello: 'Hello,',
      logOut: 'Log out',
      different: 'The new passwords are not the same.',
      noAnswer: 'The server does not answer.',
      gone: 'You are logged in no longer.',
    },
  },
  it: {
    outcomes: {
      wrong_password: 'Il nome utente o la password non è corretta.',
      account_restriction: "Il Suo account non può accedere. Si rivolga all'amministratore.",
      misconfigured: "La Sua richiesta non può essere completata. Riprovi tra un minuto o si rivolga all'amministratore.",
      logon_hours: 'Il Suo account non può accedere in questo orario.',
      workstation: 'Il Suo account non può accedere da questo computer.',
      password_expired: 'La Sua password è scaduta e deve essere cambiata.',
      must_change: 'Prima di accedere deve cambiare la Sua password.',
      disabled: 'Il Suo account è disabilitato.',
      account_expired: 'Il Suo account è scaduto.',
      locked_out: "Il Suo account è bloccato. Riprovi più tardi o si rivolga all'amministratore.",
      denied: 'Il Suo account non può usare questo servizio.',
      password_refused: 'La nuova password non è stata accettata.',
      change_forbidden: 'Non Le è consentito cambiare la password.',
      change_unknown: 'Non è certo che la Sua password sia stata cambiata. Provi ad accedere con quella nuova.',
      session_denied: "Ha già effettuato l'accesso altrove.",
      session_store: 'Non è possibile registrare la Sua sessione. Riprovi tra poco.',
      unavailable: 'Il servizio di accesso non riesce a raggiungere Active Directory. Riprovi tra poco.',
    },
    ends: {
      replaced: 'Ha effettuato un altro accesso, quindi questa sessione è stata chiusa.',
      refused: "Il Suo account non può più restare connesso. Si rivolga all'amministratore.",
      kicked: "L'amministratore ha chiuso la Sua sessione.",
      other: 'La Sua sessione è terminata. Acceda di nuovo.',
    },
    typeBoth: 'Inserisca il nome utente e la password.',
    typePasswords: 'Inserisca entrambe le password.',
    loggedOut: 'È uscito correttamente.',
    page: {
      user: 'Nome utente',
      password: 'Password',
      newPassword: 'Nuova password',
      again: 'Ripeta la nuova password',
      logIn: 'Accedi',
      hello: 'Buongiorno,',
      logOut: 'Esci',
      different: 'Le nuove password non coincidono.',
      noAnswer: 'Il server non risponde.',
      gone: 'Non è più connesso.',
    },
  },
  de: {
    outcomes: {
      wrong_password: 'Der Benutzername oder das Kennwort ist falsch.',
      account_restriction: 'Mit Ihrem Konto können Sie sich nicht anmelden. Wenden Sie sich an Ihren Administrator.',
      misconfigured:
        'Ihre Anfrage konnte nicht bearbeitet werden. Versuchen Sie es in einer Minute erneut oder fragen Sie Ihren Administrator.',
      logon_hours: 'Mit Ihrem Konto können Sie sich zu dieser Zeit nicht anmelden.',
      workstation: 'Mit Ihrem Konto können Sie sich an diesem Computer nicht anmelden.',
      password_expired: 'Ihr Kennwort ist abgelaufen und muss geändert werden.',
      must_change: 'Sie müssen Ihr Kennwort ändern, bevor Sie sich anmelden können.',
      disabled: 'Ihr Konto ist deaktiviert.',
      account_expired: 'Ihr Konto ist abgelaufen.',
      locked_out: 'Ihr Konto ist gesperrt. Versuchen Sie es später erneut oder wenden Sie sich an Ihren Administrator.',
      denied: 'Mit Ihrem Konto können Sie diesen Dienst nicht nutzen.',
      password_refused: 'Ihr neues Kennwort wurde nicht angenommen.',
      change_forbidden: 'Sie dürfen Ihr Kennwort nicht ändern.',
      change_unknown: 'Es ist nicht sicher, ob Ihr Kennwort geändert wurde. Versuchen Sie, sich mit dem neuen anzumelden.',
      session_denied: 'Sie sind bereits an anderer Stelle angemeldet.',
      session_store: 'Ihre Sitzung kann nicht registriert werden. Versuchen Sie es gleich noch einmal.',
      unavailable: 'Der Anmeldedienst kann Active Directory nicht erreichen. Versuchen Sie es gleich noch einmal.',
    },
    ends: {
      replaced: 'Sie haben sich an anderer Stelle angemeldet und wurden hier abgemeldet.',
      refused: 'Ihr Konto darf nicht mehr angemeldet sein. Wenden Sie sich an Ihren Administrator.',
      kicked: 'Ihr Administrator hat Sie abgemeldet.',
      other: 'Ihre Sitzung ist beendet. Melden Sie sich erneut an.',
    },
    typeBoth: 'Geben Sie Ihren Benutzernamen und Ihr Kennwort ein.',
    typePasswords: 'Geben Sie beide Kennwörter ein.',
    loggedOut: 'Sie haben sich abgemeldet.',
    page: {
      user: 'Benutzername',
      password: 'Kennwort',
      newPassword: 'Neues Kennwort',
      again: 'Neues Kennwort wiederholen',
      logIn: 'Anmelden',
      hello: 'Guten Tag,',
      logOut: 'Abmelden',
      different: 'Die neuen Kennwörter stimmen nicht überein.',
      noAnswer: 'Der Server antwortet nicht.',
      gone: 'Sie sind nicht mehr angemeldet.',
    },
  },
  es: {
    outcomes: {
      wrong_password: 'El nombre de usuario o la contraseña no es correcta.',
      account_restriction: 'Su cuenta no puede iniciar sesión. Consulte a su administrador.',
      misconfigured: 'No se ha podido completar su solicitud. Inténtelo de nuevo en un minuto o consulte a su administrador.',
      logon_hours: 'Su cuenta no puede iniciar sesión a esta hora.',
      workstation: 'Su cuenta no puede iniciar sesión desde este equipo.',
      password_expired: 'Su contraseña ha caducado y debe cambiarse.',
      must_change: 'Debe cambiar su contraseña antes de iniciar sesión.',
      disabled: 'Su cuenta está deshabilitada.',
      account_expired: 'Su cuenta ha caducado.',
      locked_out: 'Su cuenta está bloqueada. Inténtelo más tarde o consulte a su administrador.',
      denied: 'Su cuenta no puede usar este servicio.',
      password_refused: 'No se ha aceptado su nueva contraseña.',
      change_forbidden: 'No se le permite cambiar su contraseña.',
      change_unknown: 'No es seguro que su contraseña se haya cambiado. Intente iniciar sesión con la nueva.',
      session_denied: 'Ya ha iniciado sesión en otro lugar.',
      session_store: 'No se puede registrar su sesión. Inténtelo de nuevo en un momento.',
      unavailable: 'El servicio de inicio de sesión no puede conectar con Active Directory. Inténtelo de nuevo en un momento.',
    },
    ends: {
      replaced: 'Ha iniciado sesión en otro lugar, por lo que aquí se ha cerrado.',
      refused: 'Su cuenta ya no puede tener una sesión abierta. Consulte a su administrador.',
      kicked: 'Su administrador ha cerrado su sesión.',
      other: 'Su sesión ha terminado. Inicie sesión de nuevo.',
    },
    typeBoth: 'Escriba su nombre de usuario y su contraseña.',
    typePasswords: 'Escriba las dos contraseñas.',
    loggedOut: 'Ha cerrado la sesión.',
    page: {
      user: 'Nombre de usuario',
      password: 'Contraseña',
      newPassword: 'Contraseña nueva',
      again: 'Repita la contraseña nueva',
      logIn: 'Iniciar sesión',
      hello: 'Hola,',
      logOut: 'Cerrar sesión',
      different: 'Las contraseñas nuevas no coinciden.',
      noAnswer: 'El servidor no responde.',
      gone: 'Su sesión ya no está abierta.',
    },
  },
  fr: {
    outcomes: {
      wrong_password: "Le nom d'utilisateur ou le mot de passe est incorrect.",
      account_restriction: 'Votre compte ne permet pas de se connecter. Adressez-vous à votre administrateur.',
      misconfigured:
        "Votre demande n'a pas pu être traitée. Réessayez dans une minute ou adressez-vous à votre administrateur.",
      logon_hours: 'Votre compte ne permet pas de se connecter à cette heure.',
      workstation: 'Votre compte ne permet pas de se connecter depuis cet ordinateur.',
      password_expired: 'Votre mot de passe a expiré et doit être changé.',
      must_change: 'Vous devez changer votre mot de passe avant de vous connecter.',
      disabled: 'Votre compte est désactivé.',
      account_expired: 'Votre compte a expiré.',
      locked_out: 'Votre compte est verrouillé. Réessayez plus tard ou adressez-vous à votre administrateur.',
      denied: "Votre compte ne permet pas d'utiliser ce service.",
      password_refused: "Votre nouveau mot de passe n'a pas été accepté.",
      change_forbidden: "Vous n'avez pas le droit de changer votre mot de passe.",
      change_unknown: "Il n'est pas certain que votre mot de passe ait été changé. Essayez de vous connecter avec le nouveau.",
      session_denied: 'Une session à votre nom est déjà ouverte ailleurs.',
      session_store: 'Votre session ne peut pas être enregistrée. Réessayez dans un instant.',
      unavailable: 'Le service de connexion ne parvient pas à joindre Active Directory. Réessayez dans un instant.',
    },
    ends: {
      replaced: 'Vous avez ouvert une session ailleurs\u00a0; celle-ci a été fermée.',
      refused: 'Votre compte ne permet plus de rester connecté. Adressez-vous à votre administrateur.',
      kicked: 'Votre administrateur a fermé votre session.',
      other: 'Votre session est terminée. Connectez-vous de nouveau.',
    },
    typeBoth: "Saisissez votre nom d'utilisateur et votre mot de passe.",
    typePasswords: 'Saisissez les deux mots de passe.',
    loggedOut: 'Votre session est fermée.',
    page: {
      user: "Nom d'utilisateur",
      password: 'Mot de passe',
      newPassword: 'Nouveau mot de passe',
      again: 'Répétez le nouveau mot de passe',
      logIn: 'Se connecter',
      hello: 'Bonjour,',
      logOut: 'Se déconnecter',
      different: 'Les nouveaux mots de passe ne sont pas identiques.',
      noAnswer: 'Le serveur ne répond pas.',
      gone: "Votre session n'est plus ouverte.",
    },
  },
  pt: {
    outcomes: {
      wrong_password: 'O nome de usuário ou a senha está incorreta.',
      account_restriction: 'Sua conta não pode entrar. Fale com o administrador.',
      misconfigured: 'Não foi possível concluir sua solicitação. Tente novamente em um minuto ou fale com o administrador.',
      logon_hours: 'Sua conta não pode entrar neste horário.',
      workstation: 'Sua conta não pode entrar a partir deste computador.',
      password_expired: 'Sua senha expirou e precisa ser alterada.',
      must_change: 'Sua senha precisa ser alterada antes de entrar.',
      disabled: 'Sua conta está desativada.',
      account_expired: 'Sua conta expirou.',
      locked_out: 'Sua conta está bloqueada. Tente novamente mais tarde ou fale com o administrador.',
      denied: 'Sua conta não pode usar este serviço.',
      password_refused: 'Sua nova senha não foi aceita.',
      change_forbidden: 'Você não tem permissão para alterar sua senha.',
      change_unknown: 'Não é certo que sua senha tenha sido alterada. Tente entrar com a nova.',
      session_denied: 'Você já entrou em outro lugar.',
      session_store: 'Não é possível registrar sua sessão. Tente novamente em instantes.',
      unavailable: 'O serviço de login não consegue acessar o Active Directory. Tente novamente em instantes.',
    },
    ends: {
      replaced: 'Você entrou em outro lugar e, por isso, saiu daqui.',
      refused: 'Sua conta não pode mais permanecer conectada. Fale com o administrador.',
      kicked: 'O administrador encerrou sua sessão.',
      other: 'Sua sessão terminou. Entre novamente.',
    },
    typeBoth: 'Digite seu nome de usuário e sua senha.',
    typePasswords: 'Digite as duas senhas.',
    loggedOut: 'Você saiu.',
    page: {
      user: 'Nome de usuário',
      password: 'Senha',
      newPassword: 'Nova senha',
      again: 'Repita a nova senha',
      logIn: 'Entrar',
      hello: 'Olá,',
      logOut: 'Sair',
      different: 'As novas senhas não são iguais.',
      noAnswer: 'O servidor não responde.',
      gone: 'Sua sessão não está mais aberta.',
    },
  },
};
const LANGUAGES = Object.keys(TEXTS);

// Outcomes with the text of another one.
const SAME = {
  unknown_user: 'wrong_password',
  unmapped: 'wrong_password',
  ambiguous: 'wrong_password',
  not_checked: 'wrong_password',
  refused: 'wrong_password',
  not_allowed: 'denied',
  too_many_groups: 'misconfigured',
};

/** Returns the first language of the browser that the application has, or English. */
function languageOf(request) {
  return request.acceptsLanguages(LANGUAGES) || 'en';
}

/** Returns the texts in the browser's language. */
function textsOf(request) {
  return TEXTS[languageOf(request)];
}

/** Returns the text for a login: that of its outcome, or the answer's own if there is none here. */
function explain(request, { outcome, text }) {
  return textsOf(request).outcomes[SAME[outcome] ?? outcome] ?? text;
}

/**
 * Returns the text for a password change. motion-ad's own text says more than the outcome, because it names the rule that the
 * new password violates. Such a reason is in the language of lang= in /etc/pam.d/motion; the texts of outcomes are translated.
 */
function explainChange(request, { text }) {
  const all = Object.values(TEXTS).flatMap(({ outcomes }) => Object.entries(outcomes));
  const [name] = all.find(([, known]) => known === text) ?? [];
  return name ? textsOf(request).outcomes[name] : text;
}

module.exports = { TEXTS, SAME, languageOf, textsOf, explain, explainChange };

# Spanish, in the polite form (usted).

logon_hours = Su cuenta no puede iniciar sesión a esta hora.
workstation = Su cuenta no puede iniciar sesión desde este equipo.
password_expired = Su contraseña ha caducado y debe cambiarse.
must_change = Debe cambiar su contraseña antes de iniciar sesión.
disabled = Su cuenta está deshabilitada.
account_expired = Su cuenta ha caducado.
locked_out = Su cuenta está bloqueada. Inténtelo más tarde o consulte a su administrador.
not_allowed = Su cuenta no puede usar este servicio.
denied = Su cuenta no puede usar este servicio.
password_refused = No se ha aceptado su nueva contraseña.
change_forbidden = No se le permite cambiar su contraseña.
change_unknown = No es seguro que su contraseña se haya cambiado. Intente iniciar sesión con la nueva.
session_denied = Ya ha iniciado sesión en otro lugar.
session_store = No se puede registrar su sesión. Inténtelo de nuevo en un momento.
unavailable = El servicio de inicio de sesión no puede conectar con Active Directory. Inténtelo de nuevo en un momento.

expires_now = Su contraseña caduca en menos de una hora.
expires_in_hours = { $count ->
    [one] Su contraseña caduca en { $count } hora.
   *[other] Su contraseña caduca en { $count } horas.
}
expires_in_days = { $count ->
    [one] Su contraseña caduca en { $count } día.
   *[other] Su contraseña caduca en { $count } días.
}

new_same = Su nueva contraseña es igual a la actual.
new_empty = Su nueva contraseña está vacía.
new_too_long = Su nueva contraseña es demasiado larga.
new_characters = Su nueva contraseña contiene caracteres que ninguna contraseña puede tener.

too_young = Su contraseña se cambió hace poco; todavía no puede cambiarse de nuevo.
too_young_days = { $count ->
    [one] Su contraseña se cambió hace menos de { $count } día; todavía no puede cambiarse de nuevo.
   *[other] Su contraseña se cambió hace menos de { $count } días; todavía no puede cambiarse de nuevo.
}
too_young_hours = { $count ->
    [one] Su contraseña se cambió hace menos de { $count } hora; todavía no puede cambiarse de nuevo.
   *[other] Su contraseña se cambió hace menos de { $count } horas; todavía no puede cambiarse de nuevo.
}
too_young_minutes = { $count ->
    [one] Su contraseña se cambió hace menos de { $count } minuto; todavía no puede cambiarse de nuevo.
   *[other] Su contraseña se cambió hace menos de { $count } minutos; todavía no puede cambiarse de nuevo.
}
too_young_seconds = { $count ->
    [one] Su contraseña se cambió hace menos de { $count } segundo; todavía no puede cambiarse de nuevo.
   *[other] Su contraseña se cambió hace menos de { $count } segundos; todavía no puede cambiarse de nuevo.
}
too_short = Su nueva contraseña es demasiado corta.
too_short_for = { $count ->
    [one] Su nueva contraseña debe tener al menos { $count } carácter.
   *[other] Su nueva contraseña debe tener al menos { $count } caracteres.
}
kinds = Su nueva contraseña debe tener caracteres de tres de estos tipos: letras mayúsculas, letras minúsculas, dígitos, otros.
name = Su nueva contraseña no puede contener su nombre de usuario ni una parte de su nombre.
complexity = Su nueva contraseña es demasiado fácil de adivinar.
history = Su nueva contraseña no puede ser una que ya haya tenido.
history_of = Su nueva contraseña no puede ser una de sus últimas { $count } contraseñas.
history_or_list = Su nueva contraseña es una que ya ha tenido, o es demasiado fácil de adivinar.
history_or_list_of = Su nueva contraseña es una de sus últimas { $count } contraseñas, o es demasiado fácil de adivinar.
age_or_right = No se le permite cambiar su contraseña, o todavía no.

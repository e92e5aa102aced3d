"""What a tool's text says: an error or data, and which kind of error. In several languages; no text is certain.

Only a text that as a whole is an error counts as one: a log that a tool was asked for may be full of the word.
Detectors use words to tell kinds of errors apart; where they can, they go by structure and comparison instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_SHORT = 600
"""Characters; a longer text that only begins like an error may be a document."""
_ERROR_KEYS = ("error", "errors", "exception", "fault", "err", "error_message", "errormessage", "error_code")
_ERROR_WORDS = (
    "error|exception|fatal|failure|failed|panic|fehler|ausnahme|erreur|échec|erro|errore|fallo|falla|ошибка|сбой|错误|"
    "錯誤|失败|失敗|エラー|例外|오류|에러|خطأ|hata|błąd|lỗi|fout|fel|chyba|kesalahan|त्रुटि"
)
_STARTS = re.compile(
    rf"""\W{{0,4}}(
        ({_ERROR_WORDS})\s*([:：\-–\[(（=#]|\d{{3}}\b|$)
      | (fatal|validation|internal|runtime|value|type|syntax|unexpected|unknown|system|server|api|tool|database|sql|io
          |network|parse|parsing|http|request|assertion|access|input)\s({_ERROR_WORDS})\s*[:：]
      | traceback\s\(most\srecent\scall\slast\)
      | ([a-z_]\w*\.)*\w*(error|exception|fault)\s*[:：(]
      | (http(/\d(\.\d)?)?|status(\s?code)?)\s*[:=]?\s*[45]\d\d\b
      | [45]\d\d\s+(bad|unauthori[sz]ed|forbidden|not|method|request|conflict|gone|too|internal|service|gateway)\b
      | thread\s'[^']*'\spanicked
      | (segmentation\sfault|command\snot\sfound)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_OUTAGE = re.compile(
    r"""
      ^\W*5\d\d\b\s+[^\W\d_]{3,} | (status|code|http|error)\W{0,3}\s*(code)?\W{0,3}5\d\d\b
    | internal\s+(server\s+)?error | service\s+(is\s+)?(temporarily\s+)?unavailable | bad\s+gateway
    | (server|backend|upstream|database|service)\s+(is\s+|was\s+)?(down|unreachable|unavailable|not\s+respond)
    | temporar\w+\s+(unavailable|failure|error|out\s+of) | try\s+again\s+(later|in\s+a) | currently\s+unavailable
    | connection\s+(was\s+|has\s+been\s+)?(refused|reset|aborted|closed|lost|error|failed|terminated|dropped)
    | (could\s+not|cannot|can't|unable\s+to|failed\s+to)\s+(connect|reach|establish|resolve\s+host)
    | econn(refused|reset|aborted) | enotfound | epipe | enospc | eai_again | broken\s+pipe
    | network\s+is\s+unreachable | name\s+or\s+service\s+not\s+known
    | temporary\s+failure\s+in\s+name\s+resolution | no\s+route\s+to\s+host | no\s+space\s+left
    | disk\s+(is\s+)?full | out\s+of\s+memory | memoryerror | oom.?killed | too\s+many\s+open\s+files
    | too\s+many\s+connections | database\s+is\s+locked | deadlock\s+(found|detected) | read-only\s+file\s+system
    | rate.?limit | too\s+many\s+requests | quota\s+(was\s+|is\s+)?exceeded | (http|status|code|error)\W*429\b
    | \b429\b\s+[^\W\d_]{3,} | throttl | overloaded | unauthorized
    | invalid\s+(api.?key|access\s+token) | (token|session|certificate)\s+(has\s+)?expired
    | certificate\s+verify\s+failed | ssl\w*\s*(error|handshake) | segmentation\s+fault | core\s+dumped
    | panicked\s+at | null\s?pointer | 'nonetype'\s+object | stack\s+overflow | unhandled\s+(exception|rejection)
    | undefined\s+is\s+not | is\s+not\s+a\s+function | assertionerror | cannot\s+read\s+propert
    | interner\s+(server)?fehler | dienst\s+(ist\s+)?(derzeit\s+)?nicht\s+(verfügbar|erreichbar)
    | verbindung\s+\w*\s*(verweigert|abgelehnt|unterbrochen|fehlgeschlagen) | server\s+(ist\s+)?nicht\s+erreichbar
    | erreur\s+interne | service\s+(temporairement\s+)?indisponible
    | connexion\s+(refusée|perdue|interrompue|impossible) | error\s+interno
    | servicio\s+(temporalmente\s+)?no\s+disponible | conexión\s+(rechazada|perdida|rehusada) | erro\s+interno
    | serviço\s+(temporariamente\s+)?indisponível | conexão\s+(recusada|perdida) | errore\s+interno
    | servizio\s+(temporaneamente\s+)?non\s+disponibile | connessione\s+rifiutata | внутренняя\s+ошибка
    | (сервис|сервер|служба)\s+(временно\s+)?недоступ | соединение\s+\w*\s*(отклонено|сброшено|прервано)
    | 内部(服务器)?错误 | 服务器内部 | 服务(器)?(暂时)?(不可用|繁忙) | 连接(被)?(拒绝|重置|失败|断开) | 系统繁忙
    | 系统错误 | サーバー(内部)?エラー | 内部(サーバー)?エラー | (現在|一時的に)?利用できません
    | 接続(が|を)?(拒否|切断|できません) | 내부\s*(서버)?\s*오류
    | 서비스를?\s*(일시적으로\s*)?(사용|이용)할\s*수\s*없 | 연결(이|을)?\s*(거부|끊|실패) | sunucu\s+hatası
    | błąd\s+(wewnętrzny|serwera) | خطأ\s+داخلي | lỗi\s+máy\s+chủ
    """,
    re.IGNORECASE | re.VERBOSE,
)
_TIMEOUT = re.compile(
    r"""
      timed[\s-]?out\b | timeout\s?error | time-?out\s+(after|while|exceeded|expired|reached|waiting|was|of\s+\d)
    | deadline\s+exceeded | etimedout | gave\s+no\s+answer\s+within | took\s+too\s+long
    | (read|connect|connection|gateway|request|operation|query|socket|lock\s+wait)\s+time-?out\b
    | takes\s+too\s+long | \b(408|504)\b\s*[^\W\d_]{3,} | zeitüberschreitung | zeitlimit
    | délai\s+(d'attente\s+)?(dépassé|expiré) | tiempo\s+(de\s+espera\s+)?(agotado|excedido)
    | tempo\s+(limite\s+)?(esgotado|scaduto) | (превышено|истекло)\s+время | 超时 | 逾時 | タイムアウト
    | 시간\s*초과 | zaman\s+aşımı
    """,
    re.IGNORECASE | re.VERBOSE,
)
_NOT_FOUND = re.compile(
    r"""
      not\s+found | no\s+such\b | (does|do|did)(\s+not|n't)\s+exist | \bnonexist
    | unknown\s+\w*\s?(id|user|order|item|key|name)\b | \b404\b
    | (could\s+not|cannot|can't|couldn't)\s+(be\s+)?(find|found|locate)
    | ^\W*(error\W+)?(no|unknown)\s+[^\W\d_]+\s+['"“]?\S+ | nicht\s+gefunden | existiert\s+nicht
    | kein\w*\s+\S+\s+gefunden | unbekannte?[rs]?\b | introuvable | n['’]existe\s+pas | aucun\w*\s+\S+\s+trouv
    | no\s+(se\s+)?(encontr|existe) | não\s+(foi\s+)?(encontrad|existe) | non\s+(trovat|esiste) | не\s+найден
    | не\s+существует | 未找到 | 不存在 | 找不到 | 見つかり | 存在しません | 찾을\s*수\s*없 | 존재하지
    | bulunamadı | nie\s+znaleziono | không\s+tìm\s+thấy | غير\s+موجود
    """,
    re.IGNORECASE | re.VERBOSE,
)
_BAD_ARGUMENT = re.compile(
    r"""
      \bformat\b | \bexpect(s|ed|ing)?\b | \binvalid\b
    | \b(must|should|has\s+to)\s+(not\s+)?(be|have|start|end|match|contain)\b | \bmalformed\b | \brequired?s?\b
    | \bmissing\b | \bunexpected\b | \bunsupported\b | out\s+of\s+range | \bnot\s+a\s+(valid|number|date) | syntax
    | cannot\s+parse | could\s+not\s+(parse|convert) | unrecogni[sz]ed
    | no\s+such\s+(column|field|function|operator)
    | unknown\s+(column|field|argument|parameter|option|property|unit)\b | (allowed|valid|supported)\s+values
    | one\s+of\b | not\s+an?\s+(expression|integer|object|array|list|valid) | too\s+(long|short|large|small)\b
    | longer\s+than | is\s+empty | ungültig | erwartet | \bmuss\b | \bfehlt\b | falsches\s+format | invalide
    | attendu | \bdoit\b | manquant | incorrecte?\b | inválid | esperad | \bdebe\b | \bfalta\b | formato
    | \bdeve\b | obrigatóri | richiest | non\s+valid | недопустим | неверн | некорректн | ожидал | долж[енн]
    | требуется | 无效 | 無效 | 格式 | 必须 | 必須 | 缺少 | 不合法 | 参数 | 無効 | 不正 | 形式 | 잘못 | 형식
    | 필수 | geçersiz | nieprawidłow | không\s+hợp\s+lệ | غير\s+صالح
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CUT = re.compile(
    r"""
      \[[\d.,\s]*(more|\d+\s+characters?\s+(more|left\s+out)|showing\b[^\]]*)[^\]]*\] | \[\d+\s+more\]
    | \(\s*\d+\s+more\b
    | [\[(<]?\s*(output|result|content|response|text|file|list)?s?\s*(was\s+|were\s+)?\btruncated\b
    | \bshowing\s+(only\s+)?(the\s+)?(first|last|\d)[\w\s,-]*\bof\b
    | (only\s+the\s+)?first\s+\d+\s+(rows|results|lines|items)\b | \bgekürzt\b | \btronqué | \btruncad | \btroncat
    | обрезан | усечен | 已截断 | 截断 | 省略 | 以下略 | 잘림 | 생략
    """,
    re.IGNORECASE | re.VERBOSE,
)
_JSON_START = re.compile(r'\s*(\{\s*"|\[\s*[\[{"])')
_ELLIPSIS = re.compile(r"(?s).{30,}(…|\.\.\.|\[\.\.\.\]|\[…\])\s*$")


def reads_like_error(text: str) -> bool:
    """Whether the text as a whole is an error message, whoever wrote it."""
    text = text.strip()
    document = _read_object(text)
    if document is not None:
        return _is_error_object(document)
    return (len(text) <= _SHORT and bool(_STARTS.match(text))) or text.startswith("Traceback (most recent call last)")


def is_outage(text: str) -> bool:
    """Whether an error is about the part that failed, not about what it was asked."""
    return bool(_OUTAGE.search(_head(text)))


def is_timeout(text: str) -> bool:
    """Whether an error says that something took too long."""
    return bool(_TIMEOUT.search(_head(text)))


def is_not_found(text: str) -> bool:
    """Whether an error says that the thing asked for is not there."""
    return bool(_NOT_FOUND.search(_head(text)))


def is_about_arguments(text: str) -> bool:
    """Whether an error says that an argument has the wrong form."""
    return bool(_BAD_ARGUMENT.search(_head(text)))


def is_cut(text: str) -> bool:
    """Whether an output says, or shows, that part of it is missing: a marker, or JSON that ends in the middle."""
    if any(_CUT.search(part) for part in (text[:300], text[-300:])) or _ELLIPSIS.match(text[-100:]):
        return True
    return (
        bool(_JSON_START.match(text))
        and len(text) >= 40
        and text.rstrip()[-1:] not in ("}", "]")
        and not _is_json(text)
    )


def _head(text: str) -> str:
    return text[:_SHORT]


def _read_object(text: str) -> Mapping[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_error_object(document: Mapping[str, Any]) -> bool:
    """`{"error": …}`, `{"ok": false, …}`, `{"status": 500, …}`; not where data stands beside an empty error."""
    lowered = {str(key).casefold(): value for key, value in document.items()}
    if any(_says_something(lowered.get(key)) for key in _ERROR_KEYS):
        return True
    if any(lowered.get(key) is False for key in ("ok", "success", "succeeded")):
        return True
    explains = any(key in lowered for key in ("message", "detail", "reason", "msg", "description"))
    for key in ("status", "status_code", "statuscode", "code"):
        value = lowered.get(key)
        if isinstance(value, str) and value.casefold() in ("error", "failed", "failure", "fail"):
            return explains or len(lowered) <= 2
        # A product may have the code 450.
        if isinstance(value, int) and 400 <= value <= 599 and (explains or (key != "code" and len(lowered) <= 2)):
            return True
    return False


def _says_something(value: Any) -> bool:
    """An error field that holds one."""
    return bool(value) and str(value).casefold() not in ("none", "no", "no error", "ok", "null", "false", "0")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True

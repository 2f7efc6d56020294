-- claim: ready -> claimed, for exactly one claimant.
-- KEYS  1 record
-- ARGV  1 claim_hash   2 request_id   3 lease_seconds   4 resume_only   5 password_verified   6 confirmed
-- Returns  CLAIMED | YOURS | CLOSED | TAKEN | EXPIRED | PASSWORD | CONFIRM | UPLOADING | GONE | UNKNOWN
-- Keeps  a single-download record has at most one claim until it lapses or is delivered
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer('GONE') end
if state == 'uploading' then return answer('UPLOADING') end
if get('lapsed:' .. ARGV[1]) then return answer('CLOSED') end
local mine = claim_get(ARGV[1])
if mine then
  if mine.closed or tonumber(mine.deadline) <= now then return answer('CLOSED') end
  -- The first request that serves is the opener; once there was a second one, no single one of
  -- them may undo the claim. A form's POST serves nothing and has no request id.
  if ARGV[2] ~= '' and mine.opener ~= ARGV[2] and not mine.shared then
    if mine.opener == '' then mine.opener = ARGV[2] else mine.shared = '1' end
    claim_set(ARGV[1], mine)
    changed()
  end
  return answer('YOURS')
end
if ARGV[4] == '1' or state == 'claimed' or number('downloads_left') <= 0 then
  return answer('TAKEN')
end
if number('expires_ms') <= now then return answer('EXPIRED') end
if get('password_hash') ~= '' and ARGV[5] ~= '1' then return answer('PASSWORD') end
if get('confirm') == 'always' and ARGV[6] ~= '1' then return answer('CONFIRM') end
local claim = claim_new(ARGV[3])
claim.opener = ARGV[2]
claim_set(ARGV[1], claim)
local left = number('downloads_left') - 1
set('downloads_left', whole(left), 'claimed_ms', whole(now))
if left == 0 then set('state', 'claimed') end
changed()
return answer('CLAIMED')

-- try_password: counts an attempt before it is verified; success gives it back; too many lock the drop.
-- KEYS  1 record
-- ARGV  1 step   2 attempt_id   3 attempts_per_pause   4 pause_seconds   5 attempts_in_all
-- Returns  TRY | WAIT | RIGHT | WRONG | LOCKED | GONE | UNKNOWN
-- Keeps  parallel guesses are all counted; a repeated call counts once
local state = get('state')
if not state then return answer('UNKNOWN') end
if state == 'gone' then return answer(get('reason') == 'locked' and 'LOCKED' or 'GONE') end
-- Attempts not known to be right, as "id:ms".
local attempts, known, latest = {}, false, 0
for id, ms in string.gmatch(get('wrong_passwords') or '', '([^%s:]+):(%d+)') do
  if id == ARGV[2] then known = true end
  if id ~= ARGV[2] or ARGV[1] ~= 'right' then
    attempts[#attempts + 1] = id .. ':' .. ms
    latest = math.max(latest, tonumber(ms))
  end
end
local count = #attempts
if ARGV[1] == 'right' then
  set('wrong_passwords', table.concat(attempts, ' '))
  changed()
  return answer('RIGHT')
end
local all = tonumber(ARGV[5])
if ARGV[1] == 'wrong' then
  if count < all then return answer('WRONG') end
  bury('locked')
  return answer('LOCKED')
end
if known then return answer('TRY') end
local paused = latest + ARGV[4] * 1000 > now
if count >= all then
  -- The last of them may be right, and be verified just now.
  if paused then return answer('WAIT') end
  bury('locked')
  return answer('LOCKED')
end
if count > 0 and count % ARGV[3] == 0 and paused then return answer('WAIT') end
attempts[count + 1] = ARGV[2] .. ':' .. whole(now)
set('wrong_passwords', table.concat(attempts, ' '))
changed()
return answer('TRY')

-- Leases on one tenant's rate limits, on this server's clock.
--
-- KEYS: one bucket a meter, a string "held at burst": messages that have not leaked out by `at`.
-- ARGV: until when an order stands (microseconds, 0: always), then for each key
--   rate (a second), burst, charge (spent already; below 0: given back), want, shadow (0 or 1).
-- Answers with the time (microseconds), 1 where the order came too late, then for each key
--   what is granted, what is left (thousandths), and how long until there is one (microseconds).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local until_ = tonumber(ARGV[1])
local late = until_ > 0 and now > until_
local answer = {now, late and 1 or 0}
for i, key in ipairs(KEYS) do
  local at = i * 5 - 3
  local rate, burst = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local charge, want = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local held = 0
  local saved = redis.call('GET', key)
  if saved then
    local was, when, size = string.match(saved, '^(%S+) (%S+) (%S+)$')
    if was then
      -- A clock that was set back must not fill the bucket, nor keep it from leaking from now on.
      held = math.max(0, tonumber(was) - math.max(0, now - tonumber(when)) * rate / 1000000)
      -- In a smaller plan nobody owes more than a full bucket.
      if tonumber(size) > burst then held = math.min(held, burst) end
    end
  end
  held = math.max(0, held + charge)
  if ARGV[at + 4] == '1' then held = math.min(held, burst) end
  local grant = 0
  if want > 0 and not late then
    grant = math.max(0, math.min(want, math.floor(burst - held + 0.001)))
    held = held + grant
  end
  local room = burst - held
  local wait = 0
  if room < 0.999 then wait = math.ceil((1 - room) / rate * 1000000) end
  if held > 0 then
    -- It expires when it would be empty: a bucket that is missing is an empty one.
    local life = math.ceil(held / rate * 1000) + 1
    redis.call('SET', key, string.format('%.6f %.0f %d', held, now, burst), 'PX', string.format('%.0f', life))
  elseif saved then
    redis.call('DEL', key)
  end
  answer[#answer + 1] = grant
  answer[#answer + 1] = math.floor(room * 1000)
  answer[#answer + 1] = wait
end
return answer

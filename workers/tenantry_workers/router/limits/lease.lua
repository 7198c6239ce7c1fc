-- Leases on one tenant's rate limits, on this server's clock.
--
-- KEYS: one bucket a meter, a string "held at burst": messages that had not leaked out at `at`.
-- ARGV: until when an order stands (microseconds, 0: always), then for each key
--   rate (a second), burst, charge (spent already; below 0: given back), age of the charge
--   (microseconds), want, shadow (0 or 1).
-- Answers with the time (microseconds), 1 where the order came too late, then for each key
--   what is granted, what is left (thousandths), and how long until there is one (microseconds).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stands = tonumber(ARGV[1])
local late = stands > 0 and now > stands
local answer = {now, late and 1 or 0}
for i, key in ipairs(KEYS) do
  local arg = i * 6 - 4
  local rate, burst = tonumber(ARGV[arg]) / 1000000, tonumber(ARGV[arg + 1])
  local charge, age = tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3])
  local want, shadow = tonumber(ARGV[arg + 4]), ARGV[arg + 5] == '1'
  local held, at = 0, now - age
  local saved = redis.call('GET', key)
  if saved then
    local was, when, size = string.match(saved, '^(%S+) (%S+) (%S+)$')
    if was then
      -- A clock that was set back must not fill the bucket, nor keep it from leaking from now on.
      held, at = tonumber(was), math.min(tonumber(when), now)
      -- In a smaller plan nobody owes more than a full bucket.
      if tonumber(size) > burst then held = math.min(held, burst) end
    end
  end
  -- What was spent a while ago has leaked since then: it is put in at its own time, or as near to
  -- it as what came before allows.
  local when = math.max(at, now - age)
  held = math.max(0, math.max(0, held - (when - at) * rate) + charge)
  if shadow then held = math.min(held, burst) end
  at = when
  local level = math.max(0, held - (now - at) * rate)
  local grant = 0
  if want > 0 and not late then
    grant = math.max(0, math.min(want, math.floor(burst - level + 0.001)))
    if grant > 0 then
      level = level + grant
      held, at = level, now
    end
  end
  local room = burst - level
  local wait = 0
  if room < 0.999 then wait = math.ceil((1 - room) / rate) end
  -- It expires when it would be empty: a bucket that is missing is an empty one.
  local life = math.ceil(level / rate / 1000)
  if life > 0 then
    local text = string.format('%.6f %.0f %d', held, at, burst)
    redis.call('SET', key, text, 'PX', string.format('%.0f', life))
  elseif saved then
    redis.call('DEL', key)
  end
  answer[#answer + 1] = grant
  answer[#answer + 1] = math.floor(room * 1000)
  answer[#answer + 1] = wait
end
return answer

// SPDX-License-Identifier: Apache-2.0
// Streams and events. A query lets a random amount of work happen first.
#include "driver/driver.h"

using namespace maestrale::ptxsim;

namespace {

Driver& driver() { return Driver::instance(); }

EventState* event_of(void* handle) {
  EventState* e = static_cast<EventState*>(handle);
  return driver().events.count(e) ? e : nullptr;
}

int create_stream(void** out, unsigned flags) {
  if (!out || flags > 1) return kInvalidValue;
  Stream* s = new Stream;
  s->blocking = (flags & 1) == 0;
  driver().streams.insert(s);
  *out = s;
  return kSuccess;
}

// Neither may be asked about a stream that is being captured.
int check_not_captured(Stream& s) {
  if (!s.capture) return kSuccess;
  s.capture->invalidated = true;
  return kCaptureUnsupported;
}

}  // namespace

PTXSIM_API cuStreamCreate(void** stream, unsigned flags) {
  return enter("cuStreamCreate", kContext, [&] { return create_stream(stream, flags); });
}
PTXSIM_API cuStreamCreateWithPriority(void** stream, unsigned flags, int) {
  return enter("cuStreamCreateWithPriority", kContext, [&] { return create_stream(stream, flags); });
}

PTXSIM_API cuStreamDestroy_v2(void* stream) {
  return enter("cuStreamDestroy_v2", kContext, [&]() -> int {
    Stream* s = driver().stream(stream);
    if (!s || s == &s->context->legacy) return kInvalidHandle;
    if (s->capture) return kCaptureUnsupported;
    driver().run_until([&] { return s->queue.empty(); });
    driver().streams.erase(s);
    delete s;
    return kSuccess;
  });
}

PTXSIM_API cuStreamSynchronize(void* stream) {
  return enter("cuStreamSynchronize", kContext, [&]() -> int {
    Stream* s = driver().stream(stream);
    if (!s) return kInvalidHandle;
    if (const int bad = check_not_captured(*s)) return bad;
    if (const int bad = driver().refuse_in_capture()) return bad;
    driver().run_until([&] { return s->queue.empty(); });
    return kSuccess;
  });
}

PTXSIM_API cuStreamQuery(void* stream) {
  return enter("cuStreamQuery", kContext, [&]() -> int {
    Stream* s = driver().stream(stream);
    if (!s) return kInvalidHandle;
    if (const int bad = check_not_captured(*s)) return bad;
    driver().run_some();
    return s->queue.empty() ? kSuccess : kNotReady;
  });
}

PTXSIM_API cuEventCreate(void** event, unsigned flags) {
  return enter("cuEventCreate", kContext, [&]() -> int {
    if (!event || flags > 7) return kInvalidValue;
    EventState* e = new EventState;
    e->timing = (flags & 2) == 0;
    driver().events.insert(e);
    *event = e;
    return kSuccess;
  });
}

PTXSIM_API cuEventDestroy_v2(void* event) {
  return enter("cuEventDestroy_v2", kContext, [&]() -> int {
    EventState* e = event_of(event);
    if (!e) return kInvalidHandle;
    driver().events.erase(e);
    delete e;
    return kSuccess;
  });
}

PTXSIM_API cuEventRecord(void* event, void* stream) {
  return enter("cuEventRecord", kContext, [&]() -> int {
    EventState* e = event_of(event);
    Stream* s = driver().stream(stream);
    if (!e || !s) return kInvalidHandle;
    if (s->capture) {
      if (s->capture->invalidated) return kCaptureInvalidated;
      e->capture = s->capture;
      e->nodes = s->last;
      return kSuccess;
    }
    e->capture = nullptr;
    e->completion = std::make_shared<Completion>();
    return driver().enqueue(*s, [c = e->completion] {
      c->done = true;
      c->milliseconds = driver().now_ms();
    });
  });
}

PTXSIM_API cuStreamWaitEvent(void* stream, void* event, unsigned) {
  return enter("cuStreamWaitEvent", kContext, [&]() -> int {
    EventState* e = event_of(event);
    Stream* s = driver().stream(stream);
    if (!e || !s) return kInvalidHandle;
    if (e->capture) {  // the stream joins the capture
      if (!driver().captures.count(e->capture)) return kCapturedEvent;
      if (s->capture && s->capture != e->capture) return kCaptureMerge;
      if (!s->capture) s->last.clear();
      s->capture = e->capture;
      s->capture->streams.insert(s);
      s->last.insert(e->nodes.begin(), e->nodes.end());
      return kSuccess;
    }
    if (s->capture) {
      s->capture->invalidated = true;  // would depend on work outside the capture
      return kCaptureUnsupported;
    }
    if (!e->completion) return kSuccess;
    return driver().enqueue_task(*s, {0, nullptr, e->completion});
  });
}

PTXSIM_API cuEventQuery(void* event) {
  return enter("cuEventQuery", kContext, [&]() -> int {
    EventState* e = event_of(event);
    if (!e) return kInvalidHandle;
    if (e->capture) return kCapturedEvent;
    driver().run_some();
    return !e->completion || e->completion->done ? kSuccess : kNotReady;
  });
}

PTXSIM_API cuEventSynchronize(void* event) {
  return enter("cuEventSynchronize", kContext, [&]() -> int {
    EventState* e = event_of(event);
    if (!e) return kInvalidHandle;
    if (e->capture) return kCapturedEvent;
    if (const int bad = driver().refuse_in_capture()) return bad;
    const auto c = e->completion;
    driver().run_until([&] { return !c || c->done; });
    return kSuccess;
  });
}

// The times are those of the host: they say nothing about a GPU.
PTXSIM_API cuEventElapsedTime(float* ms, void* start, void* end) {
  return enter("cuEventElapsedTime", kContext, [&]() -> int {
    EventState* a = event_of(start);
    EventState* b = event_of(end);
    if (!a || !b || !a->timing || !b->timing || !a->completion || !b->completion) return kInvalidHandle;
    if (!ms) return kInvalidValue;
    if (!a->completion->done || !b->completion->done) return kNotReady;
    *ms = float(b->completion->milliseconds - a->completion->milliseconds);
    return kSuccess;
  });
}

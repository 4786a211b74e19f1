// From "service/method" to the code that answers. Filled once, before the first call.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "agent/guest/call.h"

namespace hatchery::agent::guest {

class Dispatcher {
 public:
  using Handler = std::function<void(std::shared_ptr<Call> call)>;

  void Add(std::string_view service, std::string_view method, Handler handler) {
    handlers_[Key(service, method)] = std::move(handler);
  }

  // A method that answers at once: `answer(const Request&)` gives a Result<Response>.
  template <class Request, class Function>
  void AddUnary(std::string_view service, std::string_view method, Function answer) {
    AddAsync<Request>(service, method, [answer](Request request, std::shared_ptr<Call> call) {
      auto response = answer(request);
      if (!response) return call->Finish(std::unexpected(response.error()));
      call->Finish(response->SerializeAsString());
    });
  }

  // A method that answers later: `start(Request, std::shared_ptr<Call>)`.
  template <class Request, class Function>
  void AddAsync(std::string_view service, std::string_view method, Function start) {
    Add(service, method, [start, name = Key(service, method)](std::shared_ptr<Call> call) {
      Request request;
      if (!request.ParseFromString(call->payload())) {
        return call->Finish(InvalidArgument("", "the payload of " + name + " does not parse"));
      }
      start(std::move(request), std::move(call));
    });
  }

  // kUnimplemented for what nobody added.
  void Dispatch(const std::string& service, const std::string& method,
                std::shared_ptr<Call> call) const {
    const auto it = handlers_.find(Key(service, method));
    if (it == handlers_.end()) {
      return call->Finish(Unimplemented("no method " + Key(service, method).substr(0, 200)));
    }
    it->second(std::move(call));
  }

 private:
  static std::string Key(std::string_view service, std::string_view method) {
    return std::string(service) + "/" + std::string(method);
  }
  std::map<std::string, Handler> handlers_;
};

}  // namespace hatchery::agent::guest

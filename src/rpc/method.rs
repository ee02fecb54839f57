//! The methods that MCP defines, in all revisions served.

/// A method by name. What MCP does not define is `Other` and the upstream's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)] // each variant is the method its `as_str` names
pub enum Method {
    Initialize,
    Ping,
    ServerDiscover,
    ToolsList,
    ToolsCall,
    PromptsList,
    PromptsGet,
    ResourcesList,
    ResourcesTemplatesList,
    ResourcesRead,
    ResourcesSubscribe,
    ResourcesUnsubscribe,
    SubscriptionsListen,
    CompletionComplete,
    LoggingSetLevel,
    TasksGet,
    TasksUpdate,
    TasksCancel,
    TasksResult,
    TasksList,
    SamplingCreateMessage,
    ElicitationCreate,
    RootsList,
    NotificationsInitialized,
    NotificationsCancelled,
    NotificationsProgress,
    NotificationsMessage,
    NotificationsRootsListChanged,
    NotificationsToolsListChanged,
    NotificationsPromptsListChanged,
    NotificationsResourcesListChanged,
    NotificationsResourcesUpdated,
    NotificationsSubscriptionsAcknowledged,
    NotificationsElicitationComplete,
    NotificationsTasksStatus,
    /// Not a method of MCP, or (in a response) no method at all.
    #[default]
    Other,
}

macro_rules! names {
    ($($variant:ident = $name:literal,)*) => {
        impl Method {
            /// Every method that MCP names.
            pub const ALL: &'static [Method] = &[$(Method::$variant,)*];

            /// The method of this decoded name.
            #[must_use]
            pub fn from_name(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    _ => Self::Other,
                }
            }

            /// Its name on the wire; `"other"` for [`Method::Other`]. A label of bounded cardinality.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other => "other",
                }
            }
        }
    };
}

names! {
    Initialize = "initialize",
    Ping = "ping",
    ServerDiscover = "server/discover",
    ToolsList = "tools/list",
    ToolsCall = "tools/call",
    PromptsList = "prompts/list",
    PromptsGet = "prompts/get",
    ResourcesList = "resources/list",
    ResourcesTemplatesList = "resources/templates/list",
    ResourcesRead = "resources/read",
    ResourcesSubscribe = "resources/subscribe",
    ResourcesUnsubscribe = "resources/unsubscribe",
    SubscriptionsListen = "subscriptions/listen",
    CompletionComplete = "completion/complete",
    LoggingSetLevel = "logging/setLevel",
    TasksGet = "tasks/get",
    TasksUpdate = "tasks/update",
    TasksCancel = "tasks/cancel",
    TasksResult = "tasks/result",
    TasksList = "tasks/list",
    SamplingCreateMessage = "sampling/createMessage",
    ElicitationCreate = "elicitation/create",
    RootsList = "roots/list",
    NotificationsInitialized = "notifications/initialized",
    NotificationsCancelled = "notifications/cancelled",
    NotificationsProgress = "notifications/progress",
    NotificationsMessage = "notifications/message",
    NotificationsRootsListChanged = "notifications/roots/list_changed",
    NotificationsToolsListChanged = "notifications/tools/list_changed",
    NotificationsPromptsListChanged = "notifications/prompts/list_changed",
    NotificationsResourcesListChanged = "notifications/resources/list_changed",
    NotificationsResourcesUpdated = "notifications/resources/updated",
    NotificationsSubscriptionsAcknowledged = "notifications/subscriptions/acknowledged",
    NotificationsElicitationComplete = "notifications/elicitation/complete",
    NotificationsTasksStatus = "notifications/tasks/status",
}

impl Method {
    /// The member of `params` that names what the method acts on: the tool, the prompt, the resource, the task.
    #[must_use]
    pub const fn subject(self) -> Option<&'static str> {
        match self {
            Self::ToolsCall | Self::PromptsGet => Some("name"),
            Self::ResourcesRead | Self::ResourcesSubscribe | Self::ResourcesUnsubscribe => Some("uri"),
            Self::TasksGet | Self::TasksUpdate | Self::TasksCancel => Some("taskId"),
            _ => None,
        }
    }

    /// Must a 2026-07-28 request of this method carry `Mcp-Name`?
    #[must_use]
    pub const fn needs_name_header(self) -> bool {
        matches!(self, Self::ToolsCall | Self::PromptsGet | Self::ResourcesRead)
    }

    /// Must `Mcp-Name`, where a 2026-07-28 request of this method carries it, equal the body? The tasks extension mirrors
    /// the task's id (SEP-2663); not all clients know that.
    #[must_use]
    pub const fn may_have_name_header(self) -> bool {
        self.needs_name_header() || matches!(self, Self::TasksGet | Self::TasksUpdate | Self::TasksCancel)
    }

    /// Defined in revisions up to 2025-11-25 and taken out of 2026-07-28, where it is an unknown method.
    #[must_use]
    pub const fn removed_in_modern(self) -> bool {
        matches!(
            self,
            Self::Initialize
                | Self::Ping
                | Self::LoggingSetLevel
                | Self::ResourcesSubscribe
                | Self::ResourcesUnsubscribe
                | Self::NotificationsInitialized
                | Self::NotificationsRootsListChanged
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Method;

    #[test]
    fn every_name_finds_its_method() {
        for &method in Method::ALL {
            assert_eq!(Method::from_name(method.as_str()), method);
            assert!(method.as_str().len() <= crate::rpc::bounds::MAX_METHOD_BYTES as usize);
        }
        for name in ["", "Tools/call", "tools/call ", "tools/calls", "other"] {
            assert_eq!(Method::from_name(name), Method::Other, "{name:?}");
        }
    }
}
